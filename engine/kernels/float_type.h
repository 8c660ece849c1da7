// From the element type of a tensor to the type that a kernel is compiled for.
#pragma once

#include "engine/core/dtype.h"

namespace qtrain {

// Whether ops compute with such elements. Their arithmetic is float32 for both (see element.h).
constexpr bool is_float_type(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16;
}

// run(T{}) with T = float or BFloat16. Ops have checked that it is one of them.
template <class Run>
decltype(auto) with_float_type(DType dtype, Run&& run) {
  return dtype == DType::bf16 ? run(BFloat16{}) : run(float{});
}

}  // namespace qtrain
