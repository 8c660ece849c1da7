// Two-dimensional convolution (cross-correlation, as in every framework).
#pragma once

#include "engine/backend/geometry.h"
#include "engine/core/tensor.h"

namespace qtrain {

// x [N, C, H, W], weight [O, C/groups, kh, kw], bias [O] or undefined; returns [N, O, oh, ow] with
// oh = floor((H + pad_begin.h + pad_end.h - dilation.h * (kh - 1) - 1) / stride.h) + 1.
// f32 or bf16: y has the type of x, weight and bias are cast to it, and their gradients come back in their
// own. Errors: ShapeError for ranks, channels, groups or a window larger than the padded input; DTypeError,
// DeviceError.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              const ConvolutionGeometry& geometry = {});

// The output's shape, with the same checks.
Shape conv2d_shape(const Shape& x, const Shape& weight, const ConvolutionGeometry& geometry);

}  // namespace qtrain
