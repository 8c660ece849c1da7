// The passes of batch norm that have no math of others in them.
#include "engine/kernels/batch_norm.h"
#include "engine/kernels/device/statistics.h"

namespace qtrain {
namespace {

BatchNormChannel channel_of(const Tensor& coefficients, const Tensor& gamma, const Tensor& beta) {
  return {coefficients.data<float>(), coefficients.dim(1), gamma.data<float>(), beta.data<float>()};
}

float* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<float>() : nullptr;
}

}  // namespace

void batch_norm_statistics(const Stream& stream, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                           float epsilon, float momentum, const Tensor& running_mean,
                           const Tensor& running_variance, const Tensor& coefficients) {
  const BatchNormTraining finish{channel_of(coefficients, gamma, beta), epsilon, momentum,
                                 data_or_null(running_mean), data_or_null(running_variance)};
  if (on_device(stream))
    return with_float_type(
        x.dtype(), [&](auto type) { device::batch_norm_statistics<decltype(type)>(stream, x, finish); });
  detail::batch_norm_statistics_on_host(x.dtype() == DType::bf16 ? widened(stream, x) : x, finish);
}

void batch_norm_coefficients(const Stream& stream, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float epsilon,
                             const Tensor& coefficients) {
  for_each(stream, gamma.numel(),
           BatchNormEvaluation{channel_of(coefficients, gamma, beta), mean.data<float>(),
                               variance.data<float>(), epsilon});
}

void batch_norm_output(const Stream& stream, const BatchNormOutput& of, const Tensor& y) {
  if (on_device(stream))
    return with_float_type(y.dtype(), [&](auto type) {
      device::batch_norm_map<decltype(type)>(stream, of, Identity{}, Tensor(), y);
    });
  if (y.dtype() == DType::bf16) return through_f32::batch_norm_output(stream, of, y);
  detail::batch_norm_tiles(of, y, nullptr);
}

}  // namespace qtrain
