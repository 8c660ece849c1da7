// Convolution as one matrix product over gathered windows, for images of a few pixels with many channels:
// there oneDNN's direct kernels reach a third of this speed, and reordering the filters costs as much as the
// product.
#pragma once

#include "engine/backend/geometry.h"
#include "engine/core/tensor.h"

namespace qtrain::convolution_gemm {

// Whether the matrix product is the faster way for this convolution; a function of the sizes alone.
bool preferred(const ConvolutionGeometry& g, const Shape& w, const Shape& y);

// These two return false, with nothing done, where there is no fast kernel for bf16.
bool forward(const Stream&, const ConvolutionGeometry&, const Tensor& x, const Tensor& w, const Tensor& bias,
             const Tensor& y);
bool backward_weight(const Stream&, const ConvolutionGeometry&, const Tensor& x, const Tensor& grad_y,
                     const Tensor& grad_w);

}  // namespace qtrain::convolution_gemm
