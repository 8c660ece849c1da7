// The text of --help.
#pragma once

#include <string>

#include "cli/field.h"

namespace qtrain::cli {

struct CommandText {
  std::string name;      // "qtrain train"
  std::string about;     // lines at the top of the help
  std::string examples;  // lines at its end
};

// Flags by group with what they take, what they mean and their defaults (the fields' present values).
std::string help_text(const CommandText& text, const Fields& fields);

}  // namespace qtrain::cli
