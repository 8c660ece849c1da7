#include "cli/flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

std::string flag_names(const Field& field) {
  if (field.positional) return field.name;
  std::string names = field.short_name.empty() ? "" : "-" + field.short_name + ",";
  names += "--" + field.name;
  if (!field.alias.empty()) names += ",--" + field.alias;
  return names;
}

std::string shown_name(const Field& field) {
  return field.positional ? field.name : "--" + field.name;
}

// Numbers and assignments may follow each other (`--milestones 30 60`); files may not, or a list of plugins
// would swallow the positional arguments behind it.
bool takes_many(const Field& field) {
  return is_list(field) &&
         (field.positional || !std::holds_alternative<std::vector<std::string>*>(field.slot));
}

void add_field(CLI::App& app, const Field& field, std::vector<GivenFlag>& given) {
  CLI::callback_t record = [&given, &field](const CLI::results_t& values) {
    given.push_back({&field, values});
    return true;
  };
  CLI::Option* option = app.add_option(flag_names(field), record);
  option->type_name(value_text(field));
  option->expected(is_list(field) ? CLI::detail::expected_max_vector_size : 1);
  option->allow_extra_args(takes_many(field));  // otherwise one value each time the flag is given
  option->multi_option_policy(is_list(field) ? CLI::MultiOptionPolicy::TakeAll
                                             : CLI::MultiOptionPolicy::TakeLast);
}

// Gives every bare switch its value: `--nesterov` becomes `--nesterov=on`, `--shuffle off` and `--no-shuffle`
// become `--shuffle=off`.
// With positional arguments about, only a word like off belongs to the switch before it.
std::vector<std::string> with_switch_values(const Fields& fields, const std::vector<std::string>& arguments) {
  static const std::vector<std::string> words = {"on", "off", "true", "false", "yes", "no", "1", "0"};
  const auto positional = [](const Field& field) { return field.positional; };
  const bool guess = std::none_of(fields.begin(), fields.end(), positional);
  std::vector<std::string> result;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto is_it = [&](const Field& f) { return is_switch(f) && arguments[i] == "--" + f.name; };
    const auto is_not_it = [&](const Field& f) { return is_switch(f) && arguments[i] == "--no-" + f.name; };
    if (std::any_of(fields.begin(), fields.end(), is_not_it)) {
      result.push_back("--" + arguments[i].substr(std::string_view("--no-").size()) + "=off");
      continue;
    }
    result.push_back(arguments[i]);
    if (std::none_of(fields.begin(), fields.end(), is_it)) continue;
    const std::string next = i + 1 < arguments.size() ? arguments[i + 1] : "-";
    const bool takes_next = std::find(words.begin(), words.end(), next) != words.end() ||
                            (guess && !next.empty() && next[0] != '-');
    result.back() += "=" + (takes_next ? next : "on");
    if (takes_next) ++i;
  }
  return result;
}

[[noreturn]] void refuse_extra(const std::string& extra, const Fields& fields) {
  if (extra.empty() || extra[0] != '-')
    throw ValueError({"command line", "unexpected argument", fmt::format("'{}'", extra), "flags", ""});
  const std::string flag = extra.substr(0, extra.find('='));
  const std::string bare = flag.substr(std::min(flag.find_first_not_of('-'), flag.size()));
  std::vector<std::string> names = names_of(fields);
  names.emplace_back("help");
  const std::string nearest = nearest_name(bare, names);
  throw ValueError({"command line", fmt::format("unknown flag {}", flag), "", "",
                    nearest.empty() ? "--help lists all flags" : fmt::format("did you mean --{}?", nearest)});
}

}  // namespace

std::optional<std::vector<GivenFlag>> parse_flags(const Fields& fields,
                                                  const std::vector<std::string>& arguments) {
  std::vector<GivenFlag> given;
  CLI::App app;
  app.allow_extras();
  for (const Field& field : fields) add_field(app, field, given);
  std::vector<std::string> reversed = with_switch_values(fields, arguments);
  std::reverse(reversed.begin(), reversed.end());  // the order that CLI11 takes
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    throw ValueError({"command line", error.what(), "", "", "--help shows what each flag takes"});
  }
  const std::vector<std::string> extras = app.remaining();
  if (!extras.empty()) refuse_extra(extras.front(), fields);
  for (const Field& field : fields) {
    const auto is_it = [&](const GivenFlag& flag) { return flag.field == &field; };
    if (field.required && std::none_of(given.begin(), given.end(), is_it))
      throw ValueError({"command line", fmt::format("{} is missing", shown_name(field)), "",
                        value_text(field), field.help});
  }
  return given;
}

void assign_flags(const std::vector<GivenFlag>& given) {
  for (const auto& [field, values] : given) assign(*field, values, shown_name(*field));
}

}  // namespace qtrain::cli
