// Batch norm of bf16 tensors on the CPU: through f32 copies, with the results rounded. A quantizer behind it
// sees y as a tensor of bf16 holds it, as on every device.
#pragma once

#include "engine/kernels/batch_norm.h"
#include "engine/kernels/convert.h"

namespace qtrain::through_f32 {

inline BatchNormOutput widened(const Stream& stream, const BatchNormOutput& of) {
  return {widened(stream, of.x), widened(stream, of.residual), of.coefficients, of.relu};
}

inline void batch_norm_output(const Stream& stream, const BatchNormOutput& of, const Tensor& y) {
  const Tensor wide = Tensor::empty(y.shape());
  qtrain::batch_norm_output(stream, widened(stream, of), wide);
  convert(stream, wide, y);
}

template <class F, class Rows>
void batch_norm_map(const Stream& stream, const BatchNormOutput& of, const F& f, const Tensor& q,
                    const Tensor& y, const Rows& rows) {
  const Tensor values = y.defined() ? y : Tensor::empty_like(of.x);
  through_f32::batch_norm_output(stream, of, values);
  map_around(stream, rows, values.numel(), {}, f, q.data<BFloat16>(), values.data<BFloat16>());
}

template <int K, class Math, class Rows>
void batch_norm_backward(const Stream& stream, const BatchNormBackward& a, const Math& math,
                         const BatchNormSums<K>& sums, const Rows& rows) {
  BatchNormBackward wide = a;
  wide.of = widened(stream, a.of);
  wide.addend = widened(stream, a.addend);
  if constexpr (std::is_same_v<Math, Identity>) {
    wide.y = widened(stream, a.y);
    wide.grad = widened(stream, a.grad);
  } else {
    Tensor y = a.y;
    if (!y.defined()) {
      y = Tensor::empty_like(a.of.x);
      through_f32::batch_norm_output(stream, a.of, y);
    }
    wide.y = widened(stream, y);
    wide.grad = Tensor::empty(y.shape());
    std::array<float, static_cast<std::size_t>(K)> totals;
    map_reduce_inside<K>(stream, rows, y.numel(), {}, math, totals.data(), wide.grad.data<float>(),
                         a.grad.data<BFloat16>(), y.data<BFloat16>());
    for (std::size_t k = 0; k < sums.size(); ++k)
      if (sums[k] != nullptr) *sums[k] = totals[k];
  }
  const auto place_for = [](const Tensor& t) { return t.defined() ? Tensor::empty(t.shape()) : t; };
  wide.gradients.x = place_for(a.gradients.x);
  wide.gradients.residual = place_for(a.gradients.residual);
  qtrain::batch_norm_backward<0>(stream, wide, Identity{});
  if (a.gradients.x.defined()) convert(stream, wide.gradients.x, a.gradients.x);
  if (a.gradients.residual.defined()) convert(stream, wide.gradients.residual, a.gradients.residual);
}

}  // namespace qtrain::through_f32
