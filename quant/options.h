// Options of quantizers: declared once with type, default and help, given by users as text (`--set
// scheme=centered`, TOML), checked against the declaration, and read back typed.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace qtrain::quant {

enum class OptionType { boolean, integer, real, choice, integers };  // integers: 8,6,4

struct OptionSpec {
  std::string name;
  OptionType type = OptionType::boolean;
  std::string default_value;  // as a user would type it
  std::string help;
  std::vector<std::string> choices;  // of OptionType::choice
};
inline OptionSpec option(std::string name, OptionType type, std::string default_value, std::string help,
                         std::vector<std::string> choices = {}) {
  return {std::move(name), type, std::move(default_value), std::move(help), std::move(choices)};
}

// Option values by name, all present and all valid.
class Options {
 public:
  Options() = default;
  // Defaults overridden by `given`. ValueError for an unknown name (with the nearest one), a value that is
  // not of the option's type, or a choice that there isn't. `owner` is named in messages: "sat (weight)".
  Options(std::string_view owner, const std::vector<OptionSpec>& specs,
          const std::map<std::string, std::string>& given);

  bool has(std::string_view name) const { return values_.contains(name); }  // is declared
  bool flag(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double real(std::string_view name) const;
  std::vector<std::int64_t> integers(std::string_view name) const;
  const std::string& choice(std::string_view name) const;

 private:
  const std::string& value(std::string_view name) const;
  std::map<std::string, std::string, std::less<>> values_;
};

}  // namespace qtrain::quant
