// Elementwise work that changes several arrays in one pass over memory, such as an optimizer's update:
//
//   update(stream, n, f, a, b, c...)     f(a[i], b[i], c[i]...) with references; const arrays are only read
//
// The arrays don't overlap. As with map(), f is copied to where it runs, and its prepare(), if any, is called
// there.
#pragma once

#include "engine/kernels/elementwise.h"

namespace qtrain {

template <class F, class... Element>
void update(const Stream& stream, std::int64_t n, F f, Element*... arrays) {
  if (on_device(stream)) return device::update(stream, n, f, arrays...);
  parallel_for(n, map_grain, [&](std::int64_t begin, std::int64_t end) {
    F local = f;
    detail::prepare(local);
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) local(arrays[i]...);
  });
}

}  // namespace qtrain
