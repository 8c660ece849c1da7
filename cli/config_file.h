// Configuration files: TOML with the names of the flags. Lists are arrays, assignments are tables:
//   quant = "sat"
//   lr = 0.05
//   [set]
//   weight.scheme = "modified"      # as --set weight.scheme=modified
#pragma once

#include <string>

#include "cli/field.h"

namespace qtrain::cli {

// Assigns every key of the file to its field. Throws IoError when the file can't be read, FormatError (with
// file and line) for broken TOML, unknown keys and wrong types, ValueError for values out of range.
void read_config(const Fields& fields, const std::string& path);
// The same from memory; `name` stands for the file in errors.
void read_config_text(const Fields& fields, const std::string& text, const std::string& name);

// All fields that belong in a file, by group; read_config gives the same values back.
std::string config_text(const Fields& fields);

}  // namespace qtrain::cli
