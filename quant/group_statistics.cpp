#include "quant/group_statistics.h"

#include <cmath>

#include "engine/backend/backend.h"
#include "engine/kernels/scalar_functors.h"

namespace qtrain::quant {
namespace {

struct SquaredDeviation {
  const float* means;
  float mean = 0;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { mean = means[group]; }
  QTRAIN_HOST_DEVICE Terms<1> operator()(float x) const { return {(x - mean) * (x - mean)}; }
};

// The standard deviation from the sum of squared deviations.
struct RootOfMean {
  float divisor;  // 0: there is one element, without a deviation
  QTRAIN_HOST_DEVICE float operator()(float sum) const { return divisor > 0 ? sqrtf(sum / divisor) : 0.0F; }
};

}  // namespace

Spread spread_of(const Tensor& x, const Grouping& grouping) {
  const Stream stream = backend(x.device()).stream();
  const std::int64_t groups = grouping.groups();
  const std::int64_t count = x.numel() / groups;
  Spread spread{Tensor::empty({groups}, DType::f32, x.device()),
                Tensor::empty({groups}, DType::f32, x.device())};
  float* const mean = spread.mean.data<float>();
  float* const std = spread.std.data<float>();
  reduce_groups<1, Sum>(stream, x.numel(), grouping, Itself(), mean, x.data<float>());
  map(stream, groups, Quotient{static_cast<float>(count)}, mean, mean);
  reduce_groups<1, Sum>(stream, x.numel(), grouping, SquaredDeviation{mean}, std, x.data<float>());
  map(stream, groups, RootOfMean{static_cast<float>(count - 1)}, std, std);
  return spread;
}

}  // namespace qtrain::quant
