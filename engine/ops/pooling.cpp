#include "engine/ops/pooling.h"

#include <fmt/format.h>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/ops/check.h"

namespace qtrain {
namespace {

Shape pooled_shape(std::string_view op, const Tensor& x, const PoolGeometry& g) {
  check::floats(op, "x", x);
  check::rank(op, "x", x, {4});
  check::sizes(x.numel() > 0, op, "nothing to pool", x.str(), "at least one image");
  constexpr std::int64_t most = 1 << 20;
  for (const std::int64_t size : {g.kernel.h, g.kernel.w, g.stride.h, g.stride.w})
    check::value(size >= 1 && size <= most, op, "window or stride",
                 fmt::format("{}x{} and {}x{}", g.kernel.h, g.kernel.w, g.stride.h, g.stride.w),
                 fmt::format("1..{}", most));
  // More padding than half a window would make windows that see nothing but padding.
  check::value(g.pad.h >= 0 && g.pad.w >= 0 && g.pad.h <= g.kernel.h / 2 && g.pad.w <= g.kernel.w / 2, op,
               "padding", fmt::format("{}x{}", g.pad.h, g.pad.w), "at most half the window");
  check::sizes(x.dim(2) + 2 * g.pad.h >= g.kernel.h && x.dim(3) + 2 * g.pad.w >= g.kernel.w, op,
               "the window doesn't fit into the padded input",
               fmt::format("{} and a window of {}x{}", x.str(), g.kernel.h, g.kernel.w), "a larger input");
  return {x.dim(0), x.dim(1), (x.dim(2) + 2 * g.pad.h - g.kernel.h) / g.stride.h + 1,
          (x.dim(3) + 2 * g.pad.w - g.kernel.w) / g.stride.w + 1};
}

struct MaxPoolNode final : Node {
  SavedTensor indices{"indices"};
  Shape x_shape;
  PoolGeometry geometry;
  std::string_view name() const override { return "max_pool2d"; }
  std::vector<SavedTensor*> saved() override { return {&indices}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& grad_y = grad_outputs[0];
    Tensor grad_x = Tensor::empty(x_shape, grad_y.dtype(), grad_y.device());
    Backend& b = backend(grad_y.device());
    b.max_pool_backward(b.stream(), geometry, indices.get(), grad_y, grad_x);
    return {grad_x};
  }
};

struct AveragePoolNode final : Node {
  Shape x_shape;
  PoolGeometry geometry;
  std::string_view name() const override { return "average_pool2d"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& grad_y = grad_outputs[0];
    Tensor grad_x = Tensor::empty(x_shape, grad_y.dtype(), grad_y.device());
    Backend& b = backend(grad_y.device());
    b.average_pool_backward(b.stream(), geometry, grad_y, grad_x);
    return {grad_x};
  }
};

}  // namespace

Tensor max_pool2d(const Tensor& x, const PoolGeometry& geometry) {
  const Shape shape = pooled_shape("max_pool2d", x, geometry);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  Tensor indices = Tensor::empty(shape, DType::i32, x.device());
  Backend& b = backend(x.device());
  b.max_pool_forward(b.stream(), geometry, x, y, indices);
  return Tape::record<MaxPoolNode>("max_pool2d", {x}, y, [&](MaxPoolNode& node) {
    node.indices.save(indices);
    node.x_shape = x.shape();
    node.geometry = geometry;
  });
}

Tensor average_pool2d(const Tensor& x, const PoolGeometry& geometry) {
  const Shape shape = pooled_shape("average_pool2d", x, geometry);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  Backend& b = backend(x.device());
  b.average_pool_forward(b.stream(), geometry, x, y);
  return Tape::record<AveragePoolNode>("average_pool2d", {x}, y, [&](AveragePoolNode& node) {
    node.x_shape = x.shape();
    node.geometry = geometry;
  });
}

Tensor global_average_pool2d(const Tensor& x) {
  check::floats("global_average_pool2d", "x", x);
  check::rank("global_average_pool2d", "x", x, {4});
  check::sizes(x.numel() > 0, "global_average_pool2d", "nothing to pool", x.str(), "at least one image");
  const Extent image{x.dim(2), x.dim(3)};
  return average_pool2d(x, {.kernel = image, .stride = image, .pad = {0, 0}, .count_padding = true});
}

}  // namespace qtrain
