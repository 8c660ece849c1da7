// One setting of a command, described once: its flag, its TOML key, its help, its range and the variable that
// holds it. The command line (flags.h) and the configuration file (config_file.h) are both made from a list
// of fields, so that they can't disagree.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qtrain::cli {

struct Assignment {  // one `key=value` of a flag such as --set
  std::string key;
  std::string value;
  bool operator==(const Assignment&) const = default;
};

// An optional number that is not set is written `auto`. Assignments given twice for one key: the last wins.
using Slot = std::variant<std::string*, std::int64_t*, double*, bool*, std::optional<std::int64_t>*,
                          std::optional<double>*, std::vector<std::int64_t>*, std::vector<double>*,
                          std::vector<std::string>*, std::vector<Assignment>*>;

// The numbers a field takes; NaN and infinities are always refused.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;   // low itself is refused
  bool high_open = false;  // high itself is refused

  bool holds(double value) const;
  std::string text() const;  // "1..32", "0 or more", "above 0 and below 1"
};

struct Field {
  std::string name = {};        // "batch-size": flag --batch-size, key batch-size
  Slot slot = {};               // the variable; not null
  std::string help = {};        // one line
  std::string value_name = {};  // what the help shows as the value; "" = made from the type or the choices
  Range range = {};             // for numbers and lists of numbers
  std::vector<std::string> choices = {};  // for strings: what is allowed; empty = anything
  std::string short_name = {};            // "b" for -b
  std::string alias = {};                 // "wd" for --wd
  std::size_t count = 0;                  // lists: how many elements, when given at all; 0 = any number
  std::string hint = {};                  // added to the error when a value is refused
  bool saved = true;                      // belongs in a configuration file
  bool positional = false;                // an argument without a flag
  bool required = false;
  std::string group = {};  // heading in the help
  // Assignments: the name of a table whose inner tables are such assignments, `quant` for [quant.activation].
  // Its plain keys are fields like any others; `name` is the field with the table's own name.
  std::string table = {};
};

using Fields = std::vector<Field>;

// The same fields under a heading.
Fields grouped(const std::string& group, Fields fields);
void append(Fields& all, Fields more);
std::vector<std::string> names_of(const Fields& fields);

bool is_list(const Field& field);
bool is_switch(const Field& field);  // on|off

// Sets the field from text. `where` is the flag, or file and line, that the error names. A list takes all
// values and each may hold several, separated by commas; everything else takes the last value. Throws
// ValueError.
void assign(const Field& field, const std::vector<std::string>& values, const std::string& where);

// Copies the value of a field to another of the same type.
void copy_value(const Field& from, const Field& to);

// The field's value as `assign` reads it: "" for an empty string or list, "auto" for an unset number.
std::string text_of(const Field& field);

// What the field takes, for messages and for the help: "N", "sgd|adam", "on|off".
std::string value_text(const Field& field);

// Whole-string conversions; nullopt when the text is no such number.
std::optional<std::int64_t> to_integer(std::string_view text);
std::optional<double> to_number(std::string_view text);

// The shortest text that reads back as the same number.
std::string number_text(double value);

}  // namespace qtrain::cli
