#include "cli/field.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

template <class Number>
std::optional<Number> parse_whole(std::string_view text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

// Carries what an error about one value has to say.
struct Context {
  const Field& field;
  const std::string& where;

  [[noreturn]] void refuse(const std::string& what, const std::string& got, const std::string& expected,
                           const std::string& hint = "") const {
    const bool named = where == "--" + field.name;
    throw ValueError(
        {where, named ? what : field.name + " " + what, got, expected, hint.empty() ? field.hint : hint});
  }
};

void parse(std::string& target, const std::string& text, const Context& context) {
  const auto& choices = context.field.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
    context.refuse("has no such choice", fmt::format("'{}'", text),
                   fmt::format("{}", fmt::join(choices, "|")), suggest(text, choices));
  target = text;
}

void parse(std::int64_t& target, const std::string& text, const Context& context) {
  const auto value = to_integer(text);
  const std::string expected = "a whole number, " + context.field.range.text();
  if (!value) context.refuse("is not a whole number", fmt::format("'{}'", text), expected);
  if (!context.field.range.holds(static_cast<double>(*value)))
    context.refuse("is out of range", text, context.field.range.text());
  target = *value;
}

void parse(double& target, const std::string& text, const Context& context) {
  const auto value = to_number(text);
  const std::string expected = "a number, " + context.field.range.text();
  if (!value) context.refuse("is not a number", fmt::format("'{}'", text), expected);
  if (!context.field.range.holds(*value)) context.refuse("is out of range", text, context.field.range.text());
  target = *value;
}

void parse(bool& target, const std::string& text, const Context& context) {
  static const std::vector<std::string> on = {"on", "true", "yes", "1"};
  static const std::vector<std::string> off = {"off", "false", "no", "0"};
  const bool is_on = std::find(on.begin(), on.end(), text) != on.end();
  if (!is_on && std::find(off.begin(), off.end(), text) == off.end())
    context.refuse("is a switch", fmt::format("'{}'", text), "on|off");
  target = is_on;
}

void parse(Assignment& target, const std::string& text, const Context& context) {
  const std::size_t split = text.find('=');
  if (split == std::string::npos || split == 0)
    context.refuse("takes key=value", fmt::format("'{}'", text), "key=value");
  target = {text.substr(0, split), text.substr(split + 1)};
}

template <class T>
void parse(std::optional<T>& target, const std::string& text, const Context& context) {
  if (text == "auto") {
    target.reset();
    return;
  }
  T value{};
  parse(value, text, context);
  target = value;
}

std::vector<std::string> split_commas(const std::vector<std::string>& values) {
  std::vector<std::string> parts;
  for (const std::string& value : values)
    for (std::size_t begin = 0; begin <= value.size();) {
      const std::size_t end = std::min(value.find(',', begin), value.size());
      parts.push_back(value.substr(begin, end - begin));
      begin = end + 1;
    }
  return parts;
}

template <class T>
std::vector<T> parse_list(const std::vector<std::string>& parts, const Context& context) {
  const std::size_t count = context.field.count;
  if (count != 0 && !parts.empty() && parts.size() != count)
    context.refuse("has the wrong number of values", std::to_string(parts.size()), std::to_string(count));
  std::vector<T> list(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) parse(list[i], parts[i], context);
  return list;
}

// Keeps the list sorted by key, so that the order of typing leaves no trace.
void merge(std::vector<Assignment>& target, const std::vector<Assignment>& given) {
  const auto before = [](const Assignment& one, const std::string& key) { return one.key < key; };
  for (const Assignment& one : given) {
    const auto place = std::lower_bound(target.begin(), target.end(), one.key, before);
    if (place == target.end() || place->key != one.key) {
      target.insert(place, one);
    } else {
      place->value = one.value;
    }
  }
}

}  // namespace

bool Range::holds(double value) const {
  return std::isfinite(value) && (low_open ? value > low : value >= low) &&
         (high_open ? value < high : value <= high);
}

std::string Range::text() const {
  const bool has_low = std::isfinite(low);
  const bool has_high = std::isfinite(high);
  if (has_low && has_high && !low_open && !high_open)
    return fmt::format("{}..{}", number_text(low), number_text(high));
  std::string bottom =
      low_open ? fmt::format("above {}", number_text(low)) : fmt::format("{} or more", number_text(low));
  std::string top =
      high_open ? fmt::format("below {}", number_text(high)) : fmt::format("at most {}", number_text(high));
  if (has_low && has_high) return bottom + " and " + top;
  if (has_low) return bottom;
  return has_high ? top : "finite";
}

Fields grouped(const std::string& group, Fields fields) {
  for (Field& field : fields) field.group = group;
  return fields;
}

void append(Fields& all, Fields more) {
  std::move(more.begin(), more.end(), std::back_inserter(all));
}

std::vector<std::string> names_of(const Fields& fields) {
  std::vector<std::string> names;
  for (const Field& field : fields) {
    names.push_back(field.name);
    if (!field.alias.empty()) names.push_back(field.alias);
  }
  return names;
}

bool is_list(const Field& field) {
  return field.slot.index() >= 6;
}

bool is_switch(const Field& field) {
  return std::holds_alternative<bool*>(field.slot);
}

void assign(const Field& field, const std::vector<std::string>& values, const std::string& where) {
  const Context context{field, where};
  if (values.empty() && !is_list(field)) context.refuse("needs a value", "nothing", value_text(field));
  std::visit(
      Overloaded{
          [&](std::vector<std::int64_t>* list) {
            *list = parse_list<std::int64_t>(split_commas(values), context);
          },
          [&](std::vector<double>* list) { *list = parse_list<double>(split_commas(values), context); },
          [&](std::vector<std::string>* list) { *list = parse_list<std::string>(values, context); },
          [&](std::vector<Assignment>* list) { merge(*list, parse_list<Assignment>(values, context)); },
          [&](auto* scalar) { parse(*scalar, values.back(), context); },
      },
      field.slot);
}

void copy_value(const Field& from, const Field& to) {
  std::visit([&](auto* value) { *std::get<decltype(value)>(to.slot) = *value; }, from.slot);
}

std::string text_of(const Field& field) {
  const auto number = [](const auto& value) -> std::string {
    if constexpr (std::is_integral_v<std::decay_t<decltype(value)>>) {
      return std::to_string(value);
    } else {
      return number_text(value);
    }
  };
  const auto numbers = [&](const auto& list) {
    std::vector<std::string> parts;
    parts.reserve(list.size());
    for (const auto& value : list) parts.push_back(number(value));
    return fmt::format("{}", fmt::join(parts, ","));
  };
  return std::visit(
      Overloaded{
          [](const std::string* text) { return *text; },
          [](const bool* on) { return std::string(*on ? "on" : "off"); },
          [&](const std::optional<std::int64_t>* value) { return *value ? number(**value) : "auto"; },
          [&](const std::optional<double>* value) { return *value ? number(**value) : "auto"; },
          [&](const std::vector<std::int64_t>* list) { return numbers(*list); },
          [&](const std::vector<double>* list) { return numbers(*list); },
          [](const std::vector<std::string>* list) { return fmt::format("{}", fmt::join(*list, ",")); },
          [](const std::vector<Assignment>* list) {
            std::vector<std::string> parts;
            for (const Assignment& one : *list) parts.push_back(one.key + "=" + one.value);
            return fmt::format("{}", fmt::join(parts, ","));
          },
          [&](const auto* value) { return number(*value); },
      },
      field.slot);
}

std::string value_text(const Field& field) {
  if (!field.value_name.empty()) return field.value_name;
  if (!field.choices.empty()) return fmt::format("{}", fmt::join(field.choices, "|"));
  return std::visit(Overloaded{
                        [](const std::string*) { return "NAME"; },
                        [](const bool*) { return "on|off"; },
                        [](const double*) { return "X"; },
                        [](const std::optional<double>*) { return "X"; },
                        [](const std::vector<std::int64_t>*) { return "N,N,..."; },
                        [](const std::vector<double>*) { return "X,X,..."; },
                        [](const std::vector<std::string>*) { return "FILE"; },
                        [](const std::vector<Assignment>*) { return "K=V"; },
                        [](const auto*) { return "N"; },
                    },
                    field.slot);
}

std::optional<std::int64_t> to_integer(std::string_view text) {
  return parse_whole<std::int64_t>(text);
}

std::optional<double> to_number(std::string_view text) {
  return parse_whole<double>(text);
}

std::string number_text(double value) {
  return fmt::format("{}", value);
}

}  // namespace qtrain::cli
