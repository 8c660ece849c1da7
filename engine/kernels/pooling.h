// Pooling, one element at a time: functors for for_each() over channels-last images. Results are those of the
// loops of the CPU's backend, whose order of operations they keep.
#pragma once

#include "engine/backend/geometry.h"
#include "engine/kernels/element.h"
#include "engine/kernels/pooling_windows.h"

namespace qtrain {

// The sizes of x [N, C, H, W] and y [N, C, oh, ow].
struct PoolSizes {
  std::int64_t channels, height, width, out_height, out_width;

  PoolSizes(const Shape& x, const Shape& y)
      : channels(x[1]), height(x[2]), width(x[3]), out_height(y[2]), out_width(y[3]) {}
};

// Where a stored element of [N, C, rows, columns] lies. Divisions of 32 bits where they do: on a GPU they
// cost a quarter of those of 64.
struct ElementPlace {
  std::int64_t n, row, column, channel;

  QTRAIN_HOST_DEVICE ElementPlace(std::int64_t i, std::int64_t rows, std::int64_t columns,
                                  std::int64_t channels) {
    if (i < (std::int64_t{1} << 31))
      split(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(rows),
            static_cast<std::uint32_t>(columns), static_cast<std::uint32_t>(channels));
    else
      split(i, rows, columns, channels);
  }

 private:
  template <class Index>
  QTRAIN_HOST_DEVICE void split(Index i, Index rows, Index columns, Index channels) {
    const Index pixel = i / channels;
    const Index line = pixel / columns;
    channel = static_cast<std::int64_t>(i - pixel * channels);
    column = static_cast<std::int64_t>(pixel - line * columns);
    n = static_cast<std::int64_t>(line / rows);
    row = static_cast<std::int64_t>(line % rows);
  }
};

template <class T>
struct MaxPoolForward {
  PoolGeometry g;
  PoolSizes s;
  const T* x;
  T* y;
  std::int32_t* indices;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    const ElementPlace p(i, s.out_height, s.out_width, s.channels);
    const Span h = window_at(p.row, g.kernel.h, g.stride.h, g.pad.h, s.height);
    const Span w = window_at(p.column, g.kernel.w, g.stride.w, g.pad.w, s.width);
    float best = 0;
    std::int64_t place = -1;
    for (std::int64_t u = h.begin; u < h.end; ++u)
      for (std::int64_t v = w.begin; v < w.end; ++v) {
        const float value = load(x[((p.n * s.height + u) * s.width + v) * s.channels + p.channel]);
        // The first NaN wins.
        if (place >= 0 && !(value > best || (value != value && best == best))) continue;
        best = value;
        place = u * s.width + v;
      }
    store(y[i], best);
    indices[i] = static_cast<std::int32_t>(place);
  }
};

// Each element of x looks at the windows that cover it.
template <class T>
struct MaxPoolBackward {
  PoolGeometry g;
  PoolSizes s;
  const std::int32_t* indices;
  const T* grad_y;
  T* grad_x;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    const ElementPlace p(i, s.height, s.width, s.channels);
    const Span h = windows_over(p.row, g.kernel.h, g.stride.h, g.pad.h, s.out_height);
    const Span w = windows_over(p.column, g.kernel.w, g.stride.w, g.pad.w, s.out_width);
    const auto place = static_cast<std::int32_t>(p.row * s.width + p.column);
    float sum = 0;
    for (std::int64_t u = h.begin; u < h.end; ++u)
      for (std::int64_t v = w.begin; v < w.end; ++v) {
        const std::int64_t at = ((p.n * s.out_height + u) * s.out_width + v) * s.channels + p.channel;
        sum += indices[at] == place ? load(grad_y[at]) : 0.0F;
      }
    store(grad_x[i], sum);
  }
};

// Elements that an average divides by.
QTRAIN_HOST_DEVICE float pool_area(const PoolGeometry& g, Span h, Span w) {
  return static_cast<float>(g.count_padding ? g.kernel.h * g.kernel.w
                                            : (h.end - h.begin) * (w.end - w.begin));
}

template <class T>
struct AveragePoolForward {
  PoolGeometry g;
  PoolSizes s;
  const T* x;
  T* y;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    const ElementPlace p(i, s.out_height, s.out_width, s.channels);
    const Span h = window_at(p.row, g.kernel.h, g.stride.h, g.pad.h, s.height);
    const Span w = window_at(p.column, g.kernel.w, g.stride.w, g.pad.w, s.width);
    float sum = 0;
    for (std::int64_t u = h.begin; u < h.end; ++u)
      for (std::int64_t v = w.begin; v < w.end; ++v)
        sum += load(x[((p.n * s.height + u) * s.width + v) * s.channels + p.channel]);
    store(y[i], sum / pool_area(g, h, w));
  }
};

template <class T>
struct AveragePoolBackward {
  PoolGeometry g;
  PoolSizes s;
  const T* grad_y;
  T* grad_x;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    const ElementPlace p(i, s.height, s.width, s.channels);
    const Span over_h = windows_over(p.row, g.kernel.h, g.stride.h, g.pad.h, s.out_height);
    const Span over_w = windows_over(p.column, g.kernel.w, g.stride.w, g.pad.w, s.out_width);
    float sum = 0;
    for (std::int64_t u = over_h.begin; u < over_h.end; ++u)
      for (std::int64_t v = over_w.begin; v < over_w.end; ++v) {
        const Span h = window_at(u, g.kernel.h, g.stride.h, g.pad.h, s.height);
        const Span w = window_at(v, g.kernel.w, g.stride.w, g.pad.w, s.width);
        const float share = 1.0F / pool_area(g, h, w);
        sum += load(grad_y[((p.n * s.out_height + u) * s.out_width + v) * s.channels + p.channel]) * share;
      }
    store(grad_x[i], sum);
  }
};

}  // namespace qtrain
