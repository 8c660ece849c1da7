// Dropout (Srivastava et al. 2014): y = x m, where m is 0 with probability p, else 1 / (1 - p).
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

// Which random numbers: those of RandomStream(seed, RandomPurpose::dropout, layer, step), one for each
// element in N, C, H, W order.
struct DropoutStream {
  std::uint64_t seed = 0;
  std::uint64_t layer = 0;
};

// x is f32 or bf16. `step` is i64 with one element on x's device, where it is read, so that a recorded step
// draws new masks in every replay; it must keep its value until the backward pass. ValueError unless 0 <= p
// <= 1.
Tensor dropout(const Tensor& x, float probability, const DropoutStream& stream, const Tensor& step);

// Adds 1 to an i64 tensor of one element, on its device.
void advance_step(const Tensor& step);

}  // namespace qtrain
