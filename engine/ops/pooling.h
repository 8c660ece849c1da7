// Pooling over windows of [N, C, H, W], f32 or bf16; windows that reach over the edge see padding.
#pragma once

#include "engine/backend/geometry.h"
#include "engine/core/tensor.h"

namespace qtrain {

// Padding counts as minus infinity; of equal maxima the first in row order gets the gradient; NaN wins.
Tensor max_pool2d(const Tensor& x, const PoolGeometry& geometry);

// Padding counts as 0; the divisor is the window's size, without the padded elements if !count_padding.
Tensor average_pool2d(const Tensor& x, const PoolGeometry& geometry);

// The mean over H and W: [N, C, 1, 1].
Tensor global_average_pool2d(const Tensor& x);

}  // namespace qtrain
