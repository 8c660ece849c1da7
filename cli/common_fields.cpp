#include "cli/common_fields.h"

namespace qtrain::cli {

Field device_field(std::string& device) {
  return {.name = "device", .slot = &device, .help = "where to compute", .choices = {"auto", "cpu", "cuda"}};
}

Field batch_size_field(std::int64_t& batch_size) {
  return {.name = "batch-size",
          .slot = &batch_size,
          .help = "images per step",
          .range = {.low = 1, .high = 1e6},
          .short_name = "b"};
}

Field plugin_field(std::vector<std::string>& plugin) {
  return {.name = "plugin", .slot = &plugin, .help = "shared library with more quantizers; repeatable"};
}

std::vector<std::string> or_auto(const std::vector<std::string>& choices) {
  std::vector<std::string> all{"auto"};
  all.insert(all.end(), choices.begin(), choices.end());
  return all;
}

}  // namespace qtrain::cli
