// Matrix products of f32 tensors of rank 2.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

// a [m, k] times b [k, n] = [m, n].
Tensor matmul(const Tensor& a, const Tensor& b);

// x [N, in] times weight [out, in] transposed, plus bias [out] or undefined: [N, out].
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace qtrain
