// Command lines from a list of fields.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/field.h"

namespace qtrain::cli {

// What was typed for one field.
struct GivenFlag {
  const Field* field;
  std::vector<std::string> values;
};

// Parses the arguments after the command's name. nullopt: --help was asked for.
// Throws ValueError for unknown flags (naming the nearest), missing values and missing required flags.
// Nothing is assigned yet, so that a configuration file can come first.
std::optional<std::vector<GivenFlag>> parse_flags(const Fields& fields,
                                                  const std::vector<std::string>& arguments);

// Assigns what was typed; an error names the flag.
void assign_flags(const std::vector<GivenFlag>& given);

}  // namespace qtrain::cli
