#include "engine/ops/reduce.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/autograd/tape.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/cast.h"
#include "engine/ops/check.h"
#include "engine/ops/map_tensors.h"
#include "engine/ops/rearrange.h"

namespace qtrain {
namespace {

// y = factor * sum over some dimensions; dL/dx repeats factor * dL/dy along them.
struct SumNode final : Node {
  Shape x_shape;
  Shape kept_shape;  // y's shape with the summed dimensions as 1
  float factor = 1;
  std::string_view name() const override { return "sum"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor g = reshape(grad_outputs[0], kept_shape.dims());
    return {add(Tensor::zeros(x_shape, g.dtype(), g.device()), scale(g, factor))};
  }
};

Tensor sum_all(const Tensor& x, std::string_view op, float factor) {
  check::floats(op, "x", x);
  check::sizes(x.numel() > 0, op, "nothing to sum", x.str(), "at least one element");
  const Tensor total = total_of(x, {});
  if (factor != 1.0F) map_tensors(Scaled{factor}, total, total);
  return Tape::record<SumNode>(op, {x}, cast(total, x.dtype()), [&](SumNode& node) {
    node.x_shape = x.shape();
    node.factor = factor;
  });
}

}  // namespace

Tensor sum(const Tensor& x) {
  return sum_all(x, "sum", 1.0F);
}

Tensor mean(const Tensor& x) {
  check::floats("mean", "x", x);
  return sum_all(x, "mean", 1.0F / static_cast<float>(x.numel()));
}

Tensor sum(const Tensor& x, std::span<const std::size_t> dims, bool keep) {
  check::floats("sum", "x", x);
  check::sizes(x.numel() > 0, "sum", "nothing to sum", x.str(), "at least one element");
  Shape kept = x.shape();
  std::array<bool, Shape::max_rank> summed{};
  for (const std::size_t d : dims) {
    check::sizes(d < x.rank(), "sum", "no such dimension", fmt::format("{} of {}", d, x.str()),
                 fmt::format("below {}", x.rank()));
    kept[d] = 1;
    summed[d] = true;
  }
  std::array<std::int64_t, Shape::max_rank> left{};
  std::size_t rank = 0;
  for (std::size_t d = 0; d < x.rank(); ++d)
    if (!summed[d]) left[rank++] = x.dim(d);
  Tensor total = sum_to_shape(x.detach(), kept);
  if (total.shares_storage_with(x)) total = total.clone();
  const Tensor y = keep ? total : reshape(total, std::span<const std::int64_t>(left.data(), rank));
  return Tape::record<SumNode>("sum", {x}, y, [&](SumNode& node) {
    node.x_shape = x.shape();
    node.kept_shape = kept;
  });
}

}  // namespace qtrain
