// Conversion between the element types that ops compute with.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

// x as f32 or bf16, rounded to nearest, ties to even; x itself where it is that already. Its gradient goes
// the other way: behind a cast of f32 weights to bf16, the weights get f32 gradients.
Tensor cast(const Tensor& x, DType dtype);

}  // namespace qtrain
