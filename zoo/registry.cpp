#include "zoo/registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/core/error.h"
#include "zoo/cifar_resnet.h"
#include "zoo/resnet.h"

namespace qtrain::zoo {
namespace {

// A new family is added here.
std::vector<ModelInfo> all_families() {
  std::vector<ModelInfo> all;
  for (std::vector<ModelInfo>& family : std::vector{resnet_models(), cifar_resnet_models()})
    std::ranges::move(family, std::back_inserter(all));
  return all;
}

}  // namespace

const std::vector<ModelInfo>& models() {
  static const std::vector<ModelInfo> all = all_families();
  return all;
}

const ModelInfo& find_model(std::string_view name) {
  const auto found = std::ranges::find(models(), name, &ModelInfo::name);
  if (found != models().end()) return *found;
  std::vector<std::string> names;
  for (const ModelInfo& m : models()) names.push_back(m.name);
  throw ValueError({.where = "model",
                    .what = "unknown model",
                    .got = fmt::format("'{}'", name),
                    .expected = fmt::format("one of: {}", fmt::join(names, ", ")),
                    .hint = suggest(name, names)});
}

std::shared_ptr<Module> make_model(std::string_view name, const ModelOptions& options) {
  const ModelInfo& info = find_model(name);
  if (options.num_classes < 0 || options.in_channels < 1)
    throw ValueError(
        {.where = info.name,
         .what = "impossible sizes",
         .got = fmt::format("{} classes, {} input channels", options.num_classes, options.in_channels),
         .expected = "at least 1",
         .hint = ""});
  ModelOptions filled = options;
  if (filled.num_classes == 0) filled.num_classes = info.num_classes;
  return info.make(filled);
}

}  // namespace qtrain::zoo
