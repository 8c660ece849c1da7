#include "layers/pooling.h"

#include <fmt/format.h>

#include "engine/ops/rearrange.h"

namespace qtrain {
namespace {

std::string describe_pool(const std::string& kind, const PoolGeometry& g) {
  std::string text =
      fmt::format("{}(kernel {}x{}, stride {}x{}", kind, g.kernel.h, g.kernel.w, g.stride.h, g.stride.w);
  if (g.pad != Extent{0, 0}) text += fmt::format(", padding {}x{}", g.pad.h, g.pad.w);
  return text + ")";
}

}  // namespace

std::string MaxPool2d::describe() const {
  return describe_pool(kind(), geometry_);
}
std::string AvgPool2d::describe() const {
  return describe_pool(kind(), geometry_);
}
Tensor Flatten::forward(const Tensor& x) {
  return flatten(x);
}

}  // namespace qtrain
