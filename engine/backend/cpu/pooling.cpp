// Pooling over channels-last images: the innermost loop runs over channels, so that it vectorizes for any
// window. Backward gathers: each input element looks at the windows that cover it, so no two threads write
// the same place.
#include <algorithm>
#include <limits>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/kernels/parallel.h"
#include "engine/kernels/pooling.h"

namespace qtrain {
namespace {

// Calls body(n, row, column) for every pixel of [N, C, H, W], image rows spread over the threads.
template <class Body>
void for_pixels(const Tensor& t, Body&& body) {
  const std::int64_t height = t.dim(2);
  const std::int64_t width = t.dim(3);
  parallel_for(t.dim(0) * height,
               std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width * t.dim(1))),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r)
                   for (std::int64_t column = 0; column < width; ++column)
                     body(r / height, r % height, column);
               });
}

}  // namespace

void CpuBackend::max_pool_forward(const Stream&, const PoolGeometry& g, const Tensor& x, const Tensor& y,
                                  const Tensor& indices) {
  const std::int64_t channels = x.dim(1);
  const std::int64_t height = x.dim(2);
  const std::int64_t width = x.dim(3);
  const float* in = x.data<float>();
  for_pixels(y, [&](std::int64_t n, std::int64_t i, std::int64_t j) {
    const std::int64_t at = ((n * y.dim(2) + i) * y.dim(3) + j) * channels;
    float* best = y.data<float>() + at;
    std::int32_t* index = indices.data<std::int32_t>() + at;
    const Span h = window_at(i, g.kernel.h, g.stride.h, g.pad.h, height);
    const Span w = window_at(j, g.kernel.w, g.stride.w, g.pad.w, width);
    bool first = true;
    for (std::int64_t u = h.begin; u < h.end; ++u)
      for (std::int64_t v = w.begin; v < w.end; ++v) {
        const float* candidate = in + ((n * height + u) * width + v) * channels;
        const auto place = static_cast<std::int32_t>(u * width + v);
        if (first) {
          std::copy_n(candidate, channels, best);
          std::fill_n(index, channels, place);
          first = false;
          continue;
        }
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) {
          const float b = best[c];
          const float x_value = candidate[c];
          const bool better = x_value > b || (x_value != x_value && b == b);  // the first NaN wins
          best[c] = better ? x_value : b;
          index[c] = better ? place : index[c];
        }
      }
  });
}

void CpuBackend::max_pool_backward(const Stream&, const PoolGeometry& g, const Tensor& indices,
                                   const Tensor& grad_y, const Tensor& grad_x) {
  const std::int64_t channels = grad_x.dim(1);
  const std::int64_t out_height = grad_y.dim(2);
  const std::int64_t out_width = grad_y.dim(3);
  for_pixels(grad_x, [&](std::int64_t n, std::int64_t u, std::int64_t v) {
    float* grad = grad_x.data<float>() + ((n * grad_x.dim(2) + u) * grad_x.dim(3) + v) * channels;
    std::fill_n(grad, channels, 0.0F);
    const auto place = static_cast<std::int32_t>(u * grad_x.dim(3) + v);
    const Span h = windows_over(u, g.kernel.h, g.stride.h, g.pad.h, out_height);
    const Span w = windows_over(v, g.kernel.w, g.stride.w, g.pad.w, out_width);
    for (std::int64_t i = h.begin; i < h.end; ++i)
      for (std::int64_t j = w.begin; j < w.end; ++j) {
        const std::int64_t at = ((n * out_height + i) * out_width + j) * channels;
        const float* incoming = grad_y.data<float>() + at;
        const std::int32_t* index = indices.data<std::int32_t>() + at;
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) grad[c] += index[c] == place ? incoming[c] : 0.0F;
      }
  });
}

void CpuBackend::average_pool_forward(const Stream&, const PoolGeometry& g, const Tensor& x,
                                      const Tensor& y) {
  const std::int64_t channels = x.dim(1);
  const float* in = x.data<float>();
  for_pixels(y, [&](std::int64_t n, std::int64_t i, std::int64_t j) {
    float* out = y.data<float>() + ((n * y.dim(2) + i) * y.dim(3) + j) * channels;
    std::fill_n(out, channels, 0.0F);
    const Span h = window_at(i, g.kernel.h, g.stride.h, g.pad.h, x.dim(2));
    const Span w = window_at(j, g.kernel.w, g.stride.w, g.pad.w, x.dim(3));
    for (std::int64_t u = h.begin; u < h.end; ++u)
      for (std::int64_t v = w.begin; v < w.end; ++v) {
        const float* term = in + ((n * x.dim(2) + u) * x.dim(3) + v) * channels;
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) out[c] += term[c];
      }
    const auto area = pool_area(g, h, w);
    for (std::int64_t c = 0; c < channels; ++c) out[c] /= area;
  });
}

void CpuBackend::average_pool_backward(const Stream&, const PoolGeometry& g, const Tensor& grad_y,
                                       const Tensor& grad_x) {
  const std::int64_t channels = grad_x.dim(1);
  const std::int64_t height = grad_x.dim(2);
  const std::int64_t width = grad_x.dim(3);
  for_pixels(grad_x, [&](std::int64_t n, std::int64_t u, std::int64_t v) {
    float* grad = grad_x.data<float>() + ((n * height + u) * width + v) * channels;
    std::fill_n(grad, channels, 0.0F);
    const Span rows = windows_over(u, g.kernel.h, g.stride.h, g.pad.h, grad_y.dim(2));
    const Span columns = windows_over(v, g.kernel.w, g.stride.w, g.pad.w, grad_y.dim(3));
    for (std::int64_t i = rows.begin; i < rows.end; ++i)
      for (std::int64_t j = columns.begin; j < columns.end; ++j) {
        const Span h = window_at(i, g.kernel.h, g.stride.h, g.pad.h, height);
        const Span w = window_at(j, g.kernel.w, g.stride.w, g.pad.w, width);
        const float share = 1.0F / pool_area(g, h, w);
        const float* incoming =
            grad_y.data<float>() + ((n * grad_y.dim(2) + i) * grad_y.dim(3) + j) * channels;
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) grad[c] += share * incoming[c];
      }
  });
}

}  // namespace qtrain
