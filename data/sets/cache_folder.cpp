#include "data/sets/cache_folder.h"

#include <cstdlib>

namespace qtrain::data {

std::optional<std::filesystem::path> cache_folder() {
  const auto from = [](const char* variable) -> std::filesystem::path {
    const char* value = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe): nothing here sets variables
    return value == nullptr ? "" : value;
  };
  const std::filesystem::path cache = from("XDG_CACHE_HOME");
  if (cache.is_absolute()) return cache / "qtrain";  // the XDG rule: relative values are ignored
  const std::filesystem::path home = from("HOME");
  if (home.empty()) return std::nullopt;
  return home / ".cache" / "qtrain";
}

}  // namespace qtrain::data
