// Where this user's programs keep what can be made again.
#pragma once

#include <filesystem>
#include <optional>

namespace qtrain::data {

// $XDG_CACHE_HOME/qtrain, or ~/.cache/qtrain; nothing where neither variable is set. It need not exist yet.
std::optional<std::filesystem::path> cache_folder();

}  // namespace qtrain::data
