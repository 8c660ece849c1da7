// Convolution by its definition, one result at a time: functors for for_each() over channels-last tensors.
// For the geometries that the vendor's library declines; sums are in float32, in the order of the loops.
#pragma once

#include "engine/backend/geometry.h"
#include "engine/kernels/element.h"
#include "engine/kernels/pooling.h"

namespace qtrain {

// x [N, C, H, W], w [O, C / groups, kh, kw], y [N, O, oh, ow].
struct ConvolutionSizes {
  ConvolutionGeometry g;
  std::int64_t batch, channels, height, width, filters, group_channels, kernel_h, kernel_w, out_height,
      out_width;

  ConvolutionSizes(const ConvolutionGeometry& geometry, const Shape& x, const Shape& w, const Shape& y)
      : g(geometry),
        batch(x[0]),
        channels(x[1]),
        height(x[2]),
        width(x[3]),
        filters(w[0]),
        group_channels(w[1]),
        kernel_h(w[2]),
        kernel_w(w[3]),
        out_height(y[2]),
        out_width(y[3]) {}

  QTRAIN_HOST_DEVICE std::int64_t group_filters() const { return filters / g.groups; }
  // The row (column) of x that output row i sees through filter row u; may lie outside.
  QTRAIN_HOST_DEVICE std::int64_t row(std::int64_t i, std::int64_t u) const {
    return i * g.stride.h - g.pad_begin.h + u * g.dilation.h;
  }
  QTRAIN_HOST_DEVICE std::int64_t column(std::int64_t j, std::int64_t v) const {
    return j * g.stride.w - g.pad_begin.w + v * g.dilation.w;
  }
  QTRAIN_HOST_DEVICE bool inside(std::int64_t h, std::int64_t c) const {
    return h >= 0 && h < height && c >= 0 && c < width;
  }
  QTRAIN_HOST_DEVICE std::int64_t x_at(std::int64_t n, std::int64_t h, std::int64_t c) const {
    return ((n * height + h) * width + c) * channels;
  }
  QTRAIN_HOST_DEVICE std::int64_t y_at(std::int64_t n, std::int64_t i, std::int64_t j) const {
    return ((n * out_height + i) * out_width + j) * filters;
  }
  QTRAIN_HOST_DEVICE std::int64_t w_at(std::int64_t o, std::int64_t u, std::int64_t v) const {
    return ((o * kernel_h + u) * kernel_w + v) * group_channels;
  }
};

// Over the elements of y.
template <class T>
struct ConvolutionForward {
  ConvolutionSizes s;
  const T* x;
  const T* w;
  T* y;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t index) const {
    const ElementPlace p(index, s.out_height, s.out_width, s.filters);
    const std::int64_t first_channel = p.channel / s.group_filters() * s.group_channels;
    float sum = 0;
    for (std::int64_t u = 0; u < s.kernel_h; ++u)
      for (std::int64_t v = 0; v < s.kernel_w; ++v) {
        const std::int64_t h = s.row(p.row, u);
        const std::int64_t c = s.column(p.column, v);
        if (!s.inside(h, c)) continue;
        const T* const pixel = x + s.x_at(p.n, h, c) + first_channel;
        const T* const filter = w + s.w_at(p.channel, u, v);
        for (std::int64_t k = 0; k < s.group_channels; ++k) sum += load(pixel[k]) * load(filter[k]);
      }
    store(y[index], sum);
  }
};

// Over the elements of x: the outputs that saw this pixel.
template <class T>
struct ConvolutionBackwardData {
  ConvolutionSizes s;
  const T* w;
  const T* grad_y;
  T* grad_x;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t index) const {
    const ElementPlace p(index, s.height, s.width, s.channels);
    const std::int64_t group = p.channel / s.group_channels;
    const std::int64_t k = p.channel % s.group_channels;
    float sum = 0;
    for (std::int64_t u = 0; u < s.kernel_h; ++u)
      for (std::int64_t v = 0; v < s.kernel_w; ++v) {
        const std::int64_t h = p.row + s.g.pad_begin.h - u * s.g.dilation.h;
        const std::int64_t c = p.column + s.g.pad_begin.w - v * s.g.dilation.w;
        if (h < 0 || c < 0 || h % s.g.stride.h != 0 || c % s.g.stride.w != 0) continue;
        const std::int64_t i = h / s.g.stride.h;
        const std::int64_t j = c / s.g.stride.w;
        if (i >= s.out_height || j >= s.out_width) continue;
        const T* const gradient = grad_y + s.y_at(p.n, i, j);
        for (std::int64_t o = group * s.group_filters(); o < (group + 1) * s.group_filters(); ++o)
          sum += load(gradient[o]) * load(w[s.w_at(o, u, v) + k]);
      }
    store(grad_x[index], sum);
  }
};

// Over the elements of w.
template <class T>
struct ConvolutionBackwardWeight {
  ConvolutionSizes s;
  const T* x;
  const T* grad_y;
  T* grad_w;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t index) const {
    const ElementPlace p(index, s.kernel_h, s.kernel_w, s.group_channels);  // n is the filter
    const std::int64_t channel = p.n / s.group_filters() * s.group_channels + p.channel;
    double sum = 0;
    for (std::int64_t n = 0; n < s.batch; ++n)
      for (std::int64_t i = 0; i < s.out_height; ++i)
        for (std::int64_t j = 0; j < s.out_width; ++j) {
          const std::int64_t h = s.row(i, p.row);
          const std::int64_t c = s.column(j, p.column);
          if (s.inside(h, c))
            sum +=
                static_cast<double>(load(x[s.x_at(n, h, c) + channel]) * load(grad_y[s.y_at(n, i, j) + p.n]));
        }
    store(grad_w[index], static_cast<float>(sum));
  }
};

}  // namespace qtrain
