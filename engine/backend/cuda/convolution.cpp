// Convolutions on cuDNN, and on kernels of our own where it declines: paddings that differ by side, for
// example.
#include "engine/backend/cuda/backend_parts.h"
#include "engine/backend/cuda/kernels.h"

namespace qtrain {

using cuda::convolution_problem;
using cuda::ConvolutionKind;

void CudaBackend::convolution_forward(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x,
                                      const Tensor& w, const Tensor& bias, const Tensor& y) {
  cuda::ConvolutionChoices& convolutions = parts_->convolutions();
  const auto run = [&](const Tensor& added) {
    return convolutions.run(
        stream, convolution_problem(ConvolutionKind::forward, g, x, w, added, y, math_),
        {.x = x.raw(), .w = w.raw(), .y = y.raw(), .bias = added.defined() ? added.raw() : nullptr},
        autotune_);
  };
  if (bias.defined() && run(bias)) return;
  if (!run({})) cuda::convolution_direct_forward(stream, g, x, w, y);
  if (bias.defined()) cuda::add_channels(stream, y, bias);
}

void CudaBackend::convolution_backward_data(const Stream& stream, const ConvolutionGeometry& g,
                                            const Tensor& w, const Tensor& grad_y, const Tensor& grad_x) {
  if (!parts_->convolutions().run(
          stream, convolution_problem(ConvolutionKind::backward_data, g, grad_x, w, {}, grad_y, math_),
          {.x = grad_x.raw(), .w = w.raw(), .y = grad_y.raw()}, autotune_))
    cuda::convolution_direct_backward_data(stream, g, w, grad_y, grad_x);
}

void CudaBackend::convolution_backward_weight(const Stream& stream, const ConvolutionGeometry& g,
                                              const Tensor& x, const Tensor& grad_y, const Tensor& grad_w,
                                              const Tensor& grad_bias) {
  if (!parts_->convolutions().run(
          stream, convolution_problem(ConvolutionKind::backward_weight, g, x, grad_w, {}, grad_y, math_),
          {.x = x.raw(), .w = grad_w.raw(), .y = grad_y.raw()}, autotune_))
    cuda::convolution_direct_backward_weight(stream, g, x, grad_y, grad_w);
  if (grad_bias.defined()) cuda::sum_channels(stream, grad_y, grad_bias);
}

}  // namespace qtrain
