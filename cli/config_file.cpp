#include "cli/config_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

struct Source {
  const std::string& path;
  std::string line_of(const toml::node& node) const {
    return fmt::format("{}:{}", path, node.source().begin.line);
  }
};

std::string type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "a boolean";
    default:
      return "a date or time";
  }
}

// The value as a flag would spell it; nullopt for arrays, tables and dates.
std::optional<std::string> scalar_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* integer = node.as_integer()) return std::to_string(integer->get());
  if (const auto* number = node.as_floating_point()) return number_text(number->get());
  if (const auto* boolean = node.as_boolean()) return std::string(boolean->get() ? "true" : "false");
  return std::nullopt;
}

// Which TOML types a field's value (for lists: each element) may have.
struct Accepts {
  std::string words;
  bool string = false;
  bool integer = false;
  bool number = false;
  bool boolean = false;

  bool takes(const toml::node& node) const {
    return (string && node.is_string()) || (integer && node.is_integer()) ||
           (number && node.is_floating_point()) || (boolean && node.is_boolean());
  }
};

Accepts accepts(const Slot& slot) {
  switch (slot.index()) {
    case 0:
      return {.words = "a string", .string = true};
    case 1:
      return {.words = "an integer", .integer = true};
    case 2:
      return {.words = "a number", .integer = true, .number = true};
    case 3:
      return {.words = "true or false", .string = true, .boolean = true};
    case 4:
      return {.words = "an integer or \"auto\"", .string = true, .integer = true};
    case 5:
      return {.words = "a number or \"auto\"", .string = true, .integer = true, .number = true};
    case 6:
      return {.words = "an array of integers", .integer = true};
    case 7:
      return {.words = "an array of numbers", .integer = true, .number = true};
    case 8:
      return {.words = "an array of strings", .string = true};
    default:
      return {.words = "a table of key = value",
              .string = true,
              .integer = true,
              .number = true,
              .boolean = true};
  }
}

[[noreturn]] void wrong_type(const Field& field, const toml::node& node, const Source& source) {
  throw FormatError({source.line_of(node), fmt::format("{} has the wrong type", field.name), type_name(node),
                     accepts(field.slot).words, ""});
}

// A table of assignments, with inner tables as dotted keys.
void collect_assignments(const Field& field, const toml::table& table, const std::string& prefix,
                         const Source& source) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    if (const auto* inner = node.as_table()) {
      collect_assignments(field, *inner, name + ".", source);
    } else if (const auto text = scalar_text(node)) {
      assign(field, {name + "=" + *text}, source.line_of(node));
    } else {
      wrong_type(field, node, source);
    }
  }
}

void assign_node(const Field& field, const toml::node& node, const Source& source) {
  const Accepts types = accepts(field.slot);
  if (std::holds_alternative<std::vector<Assignment>*>(field.slot)) {
    const auto* table = node.as_table();
    if (table == nullptr) wrong_type(field, node, source);
    collect_assignments(field, *table, "", source);
    return;
  }
  std::vector<std::string> values;
  if (is_list(field)) {
    const auto* array = node.as_array();
    if (array == nullptr) wrong_type(field, node, source);
    for (const toml::node& element : *array) {
      if (!types.takes(element)) wrong_type(field, element, source);
      values.push_back(*scalar_text(element));
    }
  } else {
    if (!types.takes(node)) wrong_type(field, node, source);
    values.push_back(*scalar_text(node));
  }
  // An unset optional number is the only one of them that may be a string.
  if ((field.slot.index() == 4 || field.slot.index() == 5) && node.is_string() && values[0] != "auto")
    wrong_type(field, node, source);
  assign(field, values, source.line_of(node));
}

const Field& find_field(const Fields& known, std::string_view name, const toml::key& key,
                        const Source& source) {
  const auto field = std::ranges::find_if(
      known, [&](const Field& f) { return f.name == name || (!f.alias.empty() && f.alias == name); });
  if (field == known.end())
    throw FormatError({fmt::format("{}:{}", source.path, key.source().begin.line),
                       fmt::format("unknown key '{}'", name), "", "",
                       suggest(name, names_of(known), "keys are the names of the flags")});
  return *field;
}

// [quant] and [quant.activation]: see Field::table.
void assign_table(const Fields& known, const Field& owner, const toml::table& table, const Source& source) {
  for (const auto& [key, node] : table) {
    const std::string name(key.str() == "name" ? std::string_view(owner.table) : key.str());
    if (const auto* inner = node.as_table())
      collect_assignments(owner, *inner, name + ".", source);
    else
      assign_node(find_field(known, name, key, source), node, source);
  }
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file || text.fail())
    throw IoError(
        {path, "can't read the configuration file", std::strerror(errno), "a readable TOML file", ""});
  return text.str();
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      result += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    } else {
      result += c;
    }
  }
  return result + "\"";
}

// TOML tells 1 from 1.0; a number that looks like an integer gets its point back.
std::string toml_number(double value) {
  const std::string text = number_text(value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string value_toml(const Field& field) {
  if (const auto* text = std::get_if<std::string*>(&field.slot)) return quoted(**text);
  if (const auto* number = std::get_if<double*>(&field.slot)) return toml_number(**number);
  if (const auto* on = std::get_if<bool*>(&field.slot)) return **on ? "true" : "false";
  if (const auto* list = std::get_if<std::vector<std::string>*>(&field.slot)) {
    std::vector<std::string> parts;
    std::transform((*list)->begin(), (*list)->end(), std::back_inserter(parts), quoted);
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
  if (const auto* list = std::get_if<std::vector<std::int64_t>*>(&field.slot))
    return fmt::format("[{}]", fmt::join(**list, ", "));
  if (const auto* list = std::get_if<std::vector<double>*>(&field.slot)) {
    std::vector<std::string> parts;
    std::transform((*list)->begin(), (*list)->end(), std::back_inserter(parts), toml_number);
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
  const std::string text = text_of(field);
  return text == "auto" ? quoted(text) : text;
}

}  // namespace

void read_config(const Fields& fields, const std::string& path) {
  read_config_text(fields, read_text(path), path);
}

void read_config_text(const Fields& fields, const std::string& text, const std::string& path) {
  const Source source{path};
  toml::table table;
  try {
    table = toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    throw FormatError({fmt::format("{}:{}", path, error.source().begin.line), "broken TOML",
                       std::string(error.description()), "", ""});
  }
  Fields known;
  std::copy_if(fields.begin(), fields.end(), std::back_inserter(known),
               [](const Field& f) { return f.saved; });
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    const auto owner = std::ranges::find_if(
        known, [&, &k = key](const Field& f) { return !f.table.empty() && f.table == k.str(); });
    if (node.is_table() && owner != known.end())
      assign_table(known, *owner, *node.as_table(), source);
    else
      assign_node(find_field(known, name, key, source), node, source);
  }
}

std::string config_text(const Fields& fields) {
  std::string text;
  std::string tables;  // behind all plain keys, as TOML demands
  std::string group;
  for (const Field& field : fields) {
    if (!field.saved) continue;
    if (const auto* list = std::get_if<std::vector<Assignment>*>(&field.slot)) {
      if (!(*list)->empty()) tables += fmt::format("\n[{}]\n", field.name);
      for (const auto& [key, value] : **list) tables += fmt::format("{} = {}\n", quoted(key), quoted(value));
      continue;
    }
    if (field.group != group) text += fmt::format("{}# {}\n", text.empty() ? "" : "\n", field.group);
    group = field.group;
    text += fmt::format("{} = {}\n", field.name, value_toml(field));
  }
  return text + tables;
}

}  // namespace qtrain::cli
