// N, C, H, W order (files, PyTorch) to and from channels-last order (memory), on the host.
#pragma once

#include "engine/core/shape.h"

namespace qtrain {

// Whether the two orders put the elements of this shape in different places.
inline bool order_differs(const Shape& s) {
  return s.rank() == 4 && s[1] > 1 && s[2] * s[3] > 1;
}

template <class T>
void to_channels_last(const Shape& shape, const T* nchw, T* nhwc) {
  const std::int64_t channels = shape[1];
  const std::int64_t pixels = shape[2] * shape[3];
  for (std::int64_t n = 0; n < shape[0]; ++n)
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t p = 0; p < pixels; ++p)
        nhwc[(n * pixels + p) * channels + c] = nchw[(n * channels + c) * pixels + p];
}

template <class T>
void from_channels_last(const Shape& shape, const T* nhwc, T* nchw) {
  const std::int64_t channels = shape[1];
  const std::int64_t pixels = shape[2] * shape[3];
  for (std::int64_t n = 0; n < shape[0]; ++n)
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t p = 0; p < pixels; ++p)
        nchw[(n * channels + c) * pixels + p] = nhwc[(n * pixels + p) * channels + c];
}

}  // namespace qtrain
