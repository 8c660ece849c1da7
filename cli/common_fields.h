// Settings that several commands have, described once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/field.h"

namespace qtrain::cli {

inline const Range bit_range{.low = 1, .high = 32};

Field device_field(std::string& device);
Field batch_size_field(std::int64_t& batch_size);
Field plugin_field(std::vector<std::string>& plugin);

// What a setting takes that is decided by the program, by the data or by the run when it isn't given.
std::vector<std::string> or_auto(const std::vector<std::string>& choices);

}  // namespace qtrain::cli
