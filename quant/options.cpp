#include "quant/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/core/error.h"

namespace qtrain::quant {
namespace {

template <class T>
bool parses_as(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// The whole numbers between the commas; empty where something else stands there.
std::vector<std::int64_t> parse_integers(std::string_view text) {
  std::vector<std::int64_t> numbers;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string part(text.substr(begin, end - begin));
    if (!parses_as<std::int64_t>(part)) return {};
    numbers.push_back(std::stoll(part));
    begin = end + 1;
  }
  return numbers;
}

// What would have been right, or "" if the value is right.
std::string expected_instead(const OptionSpec& spec, const std::string& value) {
  switch (spec.type) {
    case OptionType::boolean:
      return value == "true" || value == "false" ? "" : "true or false";
    case OptionType::integer:
      return parses_as<std::int64_t>(value) ? "" : "a whole number";
    case OptionType::real:
      return parses_as<double>(value) && std::isfinite(std::stod(value)) ? "" : "a finite number";
    case OptionType::integers:
      return parse_integers(value).empty() ? "whole numbers joined by commas" : "";
    case OptionType::choice:
      return std::ranges::find(spec.choices, value) != spec.choices.end()
                 ? ""
                 : fmt::format("one of {}", fmt::join(spec.choices, ", "));
  }
  return "";
}

std::string canonical(const OptionSpec& spec, std::string value) {
  if (spec.type != OptionType::boolean) return value;
  if (value == "1" || value == "on" || value == "yes" || value == "True") return "true";
  if (value == "0" || value == "off" || value == "no" || value == "False") return "false";
  return value;
}

}  // namespace

Options::Options(std::string_view owner, const std::vector<OptionSpec>& specs,
                 const std::map<std::string, std::string>& given) {
  std::vector<std::string> names;
  for (const OptionSpec& spec : specs) {
    values_[spec.name] = spec.default_value;
    names.push_back(spec.name);
  }
  for (const auto& [name, text] : given) {
    const auto spec = std::ranges::find(specs, name, &OptionSpec::name);
    if (spec == specs.end())
      throw ValueError(
          {.where = std::string(owner),
           .what = fmt::format("unknown option '{}'", name),
           .got = "",
           .expected = names.empty() ? "no options" : fmt::format("one of {}", fmt::join(names, ", ")),
           .hint = suggest(name, names)});
    const std::string value = canonical(*spec, text);
    const std::string expected = expected_instead(*spec, value);
    if (!expected.empty())
      throw ValueError({.where = std::string(owner),
                        .what = fmt::format("option '{}'", name),
                        .got = fmt::format("'{}'", text),
                        .expected = expected,
                        .hint = spec->type == OptionType::choice ? suggest(text, spec->choices) : ""});
    values_[name] = value;
  }
}

const std::string& Options::value(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end())
    throw ValueError({.where = "options",
                      .what = fmt::format("option '{}' was never declared", name),
                      .got = "",
                      .expected = "",
                      .hint = ""});
  return found->second;
}

bool Options::flag(std::string_view name) const {
  return value(name) == "true";
}
std::int64_t Options::integer(std::string_view name) const {
  return std::stoll(value(name));
}
double Options::real(std::string_view name) const {
  return std::stod(value(name));
}
std::vector<std::int64_t> Options::integers(std::string_view name) const {
  return parse_integers(value(name));
}
const std::string& Options::choice(std::string_view name) const {
  return value(name);
}

}  // namespace qtrain::quant
