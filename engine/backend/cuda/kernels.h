// Our own kernels that stand in for what the libraries decline or don't have.
#pragma once

#include "engine/backend/geometry.h"
#include "engine/core/tensor.h"

namespace qtrain::cuda {

// Channels are dimension 1 and lie next to each other in memory: [N, C, H, W] or [N, C].
void add_channels(const Stream&, const Tensor& y, const Tensor& bias);  // y += bias, per channel
void sum_channels(const Stream&, const Tensor& grad_y,
                  const Tensor& grad_bias);  // grad_bias = sums of channels

// Convolutions by their definition, for every geometry; slow.
void convolution_direct_forward(const Stream&, const ConvolutionGeometry&, const Tensor& x, const Tensor& w,
                                const Tensor& y);
void convolution_direct_backward_data(const Stream&, const ConvolutionGeometry&, const Tensor& w,
                                      const Tensor& grad_y, const Tensor& grad_x);
void convolution_direct_backward_weight(const Stream&, const ConvolutionGeometry&, const Tensor& x,
                                        const Tensor& grad_y, const Tensor& grad_w);

}  // namespace qtrain::cuda
