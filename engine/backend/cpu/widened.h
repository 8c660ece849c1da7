// f32 copies of bf16 tensors, for what has no fast bf16 kernel: the work is done on them, and its result is
// rounded by convert().
#pragma once

#include "engine/core/tensor.h"
#include "engine/kernels/convert.h"

namespace qtrain {

// No tensor stays no tensor.
inline Tensor widened(const Stream& stream, const Tensor& t) {
  if (!t.defined()) return t;
  const Tensor wide = Tensor::empty(t.shape());
  convert(stream, t, wide);
  return wide;
}

}  // namespace qtrain
