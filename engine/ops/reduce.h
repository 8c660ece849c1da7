// Reductions of f32 or bf16 tensors to the same type, summed in float32 blockwise in a fixed order: the same
// bits for any number of threads.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

Tensor sum(const Tensor& x);   // all elements: a scalar
Tensor mean(const Tensor& x);  // all elements: a scalar
// Over the given dimensions, which become size 1 (keep) or disappear.
Tensor sum(const Tensor& x, std::span<const std::size_t> dims, bool keep = false);

}  // namespace qtrain
