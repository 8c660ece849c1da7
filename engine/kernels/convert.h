// Conversion between float element types.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

// to = from, rounded to nearest, ties to even, where `to` is bf16. Both are f32 or bf16, of equal shapes.
void convert(const Stream& stream, const Tensor& from, const Tensor& to);

// An f32 copy, for work that has no bf16 of its own; its result is rounded by convert(). No tensor stays no
// tensor.
Tensor widened(const Stream& stream, const Tensor& t);

}  // namespace qtrain
