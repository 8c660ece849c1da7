// Matrix products of tensors of rank 2, f32 or bf16.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

// a [m, k] times b [k, n] = [m, n]; of one element type.
Tensor matmul(const Tensor& a, const Tensor& b);

// x [N, in] times weight [out, in] transposed, plus bias [out] or undefined: [N, out]. The result has
// the type of x; weight and bias are cast to it, and their gradients come back in their own.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace qtrain
