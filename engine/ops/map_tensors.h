// Elementwise kernels over whole tensors.
#pragma once

#include "engine/backend/backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/scalar_functors.h"

namespace qtrain {

// out = f(in...), all of one element type, f32 or bf16, and one shape. Inputs may be the output.
template <class F, class... In>
void map_tensors(const F& f, const Tensor& out, const In&... in) {
  with_float_type(out.dtype(), [&](auto type) {
    using T = decltype(type);
    map(backend(out.device()).stream(), out.numel(), f, out.data<T>(), in.template data<T>()...);
  });
}

// The sum of all elements, as an f32 tensor of this shape.
inline Tensor total_of(const Tensor& x, const Shape& shape) {
  Tensor total = Tensor::empty(shape, DType::f32, x.device());
  with_float_type(x.dtype(), [&](auto type) {
    reduce<1, Sum>(backend(x.device()).stream(), x.numel(), Itself(), total.data<float>(),
                   x.data<decltype(type)>());
  });
  return total;
}

}  // namespace qtrain
