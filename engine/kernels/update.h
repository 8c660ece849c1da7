// Elementwise work that changes several arrays in one pass over memory, such as an optimizer's update:
//
//   update(stream, n, f, a, b, c...)     f(a[i], b[i], c[i]...) with references; const arrays are only read
//   update_where(stream, n, wanted, f, a, b, c...)
//                                        the same in the blocks b of `reduction_block` elements whose
//                                        wanted(b) is true
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

template <class Wanted, class F, class... Element>
void update_where(const Stream& stream, std::int64_t n, Wanted wanted, F f, Element*... arrays) {
  if (on_device(stream)) return device::update_where(stream, n, wanted, f, arrays...);
  parallel_for(reduction_blocks(n), 1, [&](std::int64_t first, std::int64_t last) {
    Wanted is_wanted = wanted;
    detail::prepare(is_wanted);
    F local = f;
    detail::prepare(local);
    for (std::int64_t b = first; b < last; ++b) {
      if (!is_wanted(b)) continue;
      const std::int64_t end = std::min(n, (b + 1) * reduction_block);
#pragma omp simd
      for (std::int64_t i = b * reduction_block; i < end; ++i) local(arrays[i]...);
    }
  });
}

}  // namespace qtrain
