// The sizes that describe a convolution or a pooling window.
#pragma once

#include <cstdint>

#include "engine/core/shape.h"

namespace qtrain {

// A pair of sizes along height and width.
struct Extent {
  std::int64_t h = 0;
  std::int64_t w = 0;
  friend bool operator==(const Extent&, const Extent&) = default;
};

// What padding adds around an image.
struct Border {
  Extent begin{0, 0};  // rows above, columns to the left
  Extent end{0, 0};    // rows below, columns to the right
  bool none() const { return *this == Border(); }
  // The shape of [N, C, H, W] images with it.
  Shape around(const Shape& x) const { return {x[0], x[1], begin.h + x[2] + end.h, begin.w + x[3] + end.w}; }
  friend bool operator==(const Border&, const Border&) = default;
};

// y[n, o, i, j] = sum over (c, u, v) of w[o, c, u, v] * x[n, c, i*stride.h - pad_begin.h + u*dilation.h, ...]
struct ConvolutionGeometry {
  Extent stride{1, 1};
  Extent pad_begin{0, 0};  // rows above, columns to the left
  Extent pad_end{0, 0};    // rows below, columns to the right
  Extent dilation{1, 1};
  std::int64_t groups = 1;
  friend bool operator==(const ConvolutionGeometry&, const ConvolutionGeometry&) = default;
};

struct PoolGeometry {
  Extent kernel{2, 2};
  Extent stride{2, 2};
  Extent pad{0, 0};           // on both sides
  bool count_padding = true;  // average pooling: the divisor counts padded elements
  friend bool operator==(const PoolGeometry&, const PoolGeometry&) = default;
};

}  // namespace qtrain
