// Pooling over channels-last images: the innermost loop runs over channels, so that it vectorizes for any
// window. Backward gathers: each input element looks at the windows that cover it, so no two threads write
// the same place.
#include <algorithm>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/parallel.h"
#include "engine/kernels/pooling.h"

namespace qtrain {
namespace {

// Where the sums of a row of channels grow, in float32: the row of the result itself, unless that is
// narrower.
template <class T>
class SumRow {
 public:
  explicit SumRow(std::int64_t channels) : sums_(static_cast<std::size_t>(channels)) {}
  float* start(T* /*row*/) {
    std::ranges::fill(sums_, 0.0F);
    return sums_.data();
  }
  void finish(T* row) const {
    for (std::size_t c = 0; c < sums_.size(); ++c) store(row[c], sums_[c]);
  }

 private:
  std::vector<float> sums_;
};
template <>
class SumRow<float> {
 public:
  explicit SumRow(std::int64_t channels) : channels_(channels) {}
  float* start(float* row) const {
    std::fill_n(row, channels_, 0.0F);
    return row;
  }
  void finish(float* /*row*/) const {}

 private:
  std::int64_t channels_;
};

// Calls body(n, row, column) for every pixel of [N, C, H, W], image rows spread over the threads, each with
// its own copy of the body.
template <class Body>
void for_pixels(const Tensor& t, const Body& body) {
  const std::int64_t height = t.dim(2);
  const std::int64_t width = t.dim(3);
  parallel_for(t.dim(0) * height,
               std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width * t.dim(1))),
               [&](std::int64_t begin, std::int64_t end) {
                 Body local = body;
                 for (std::int64_t r = begin; r < end; ++r)
                   for (std::int64_t column = 0; column < width; ++column)
                     local(r / height, r % height, column);
               });
}

template <class T>
void max_forward(const PoolGeometry& g, const Tensor& x, const Tensor& y, const Tensor& indices) {
  const std::int64_t channels = x.dim(1);
  const std::int64_t height = x.dim(2);
  const std::int64_t width = x.dim(3);
  const T* in = x.data<T>();
  for_pixels(y, [&](std::int64_t n, std::int64_t i, std::int64_t j) {
    const std::int64_t at = ((n * y.dim(2) + i) * y.dim(3) + j) * channels;
    T* best = y.data<T>() + at;
    std::int32_t* index = indices.data<std::int32_t>() + at;
    const Span h = window_at(i, g.kernel.h, g.stride.h, g.pad.h, height);
    const Span w = window_at(j, g.kernel.w, g.stride.w, g.pad.w, width);
    bool first = true;
    for (std::int64_t u = h.begin; u < h.end; ++u)
      for (std::int64_t v = w.begin; v < w.end; ++v) {
        const T* candidate = in + ((n * height + u) * width + v) * channels;
        const auto place = static_cast<std::int32_t>(u * width + v);
        if (first) {
          std::copy_n(candidate, channels, best);
          std::fill_n(index, channels, place);
          first = false;
          continue;
        }
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) {
          const float b = load(best[c]);
          const float x_value = load(candidate[c]);
          const bool better = x_value > b || (x_value != x_value && b == b);  // the first NaN wins
          store(best[c], better ? x_value : b);
          index[c] = better ? place : index[c];
        }
      }
  });
}

template <class T>
void max_backward(const PoolGeometry& g, const Tensor& indices, const Tensor& grad_y, const Tensor& grad_x) {
  const std::int64_t channels = grad_x.dim(1);
  const std::int64_t out_height = grad_y.dim(2);
  const std::int64_t out_width = grad_y.dim(3);
  SumRow<T> sums(channels);
  for_pixels(grad_x, [&, sums](std::int64_t n, std::int64_t u, std::int64_t v) mutable {
    T* row = grad_x.data<T>() + ((n * grad_x.dim(2) + u) * grad_x.dim(3) + v) * channels;
    float* grad = sums.start(row);
    const auto place = static_cast<std::int32_t>(u * grad_x.dim(3) + v);
    const Span h = windows_over(u, g.kernel.h, g.stride.h, g.pad.h, out_height);
    const Span w = windows_over(v, g.kernel.w, g.stride.w, g.pad.w, out_width);
    for (std::int64_t i = h.begin; i < h.end; ++i)
      for (std::int64_t j = w.begin; j < w.end; ++j) {
        const std::int64_t at = ((n * out_height + i) * out_width + j) * channels;
        const T* incoming = grad_y.data<T>() + at;
        const std::int32_t* index = indices.data<std::int32_t>() + at;
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) grad[c] += index[c] == place ? load(incoming[c]) : 0.0F;
      }
    sums.finish(row);
  });
}

template <class T>
void average_forward(const PoolGeometry& g, const Tensor& x, const Tensor& y) {
  const std::int64_t channels = x.dim(1);
  const T* in = x.data<T>();
  SumRow<T> sums(channels);
  for_pixels(y, [&, sums](std::int64_t n, std::int64_t i, std::int64_t j) mutable {
    T* row = y.data<T>() + ((n * y.dim(2) + i) * y.dim(3) + j) * channels;
    float* out = sums.start(row);
    const Span h = window_at(i, g.kernel.h, g.stride.h, g.pad.h, x.dim(2));
    const Span w = window_at(j, g.kernel.w, g.stride.w, g.pad.w, x.dim(3));
    for (std::int64_t u = h.begin; u < h.end; ++u)
      for (std::int64_t v = w.begin; v < w.end; ++v) {
        const T* term = in + ((n * x.dim(2) + u) * x.dim(3) + v) * channels;
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) out[c] += load(term[c]);
      }
    const float area = pool_area(g, h, w);
    for (std::int64_t c = 0; c < channels; ++c) out[c] /= area;
    sums.finish(row);
  });
}

template <class T>
void average_backward(const PoolGeometry& g, const Tensor& grad_y, const Tensor& grad_x) {
  const std::int64_t channels = grad_x.dim(1);
  const std::int64_t height = grad_x.dim(2);
  const std::int64_t width = grad_x.dim(3);
  SumRow<T> sums(channels);
  for_pixels(grad_x, [&, sums](std::int64_t n, std::int64_t u, std::int64_t v) mutable {
    T* row = grad_x.data<T>() + ((n * height + u) * width + v) * channels;
    float* grad = sums.start(row);
    const Span rows = windows_over(u, g.kernel.h, g.stride.h, g.pad.h, grad_y.dim(2));
    const Span columns = windows_over(v, g.kernel.w, g.stride.w, g.pad.w, grad_y.dim(3));
    for (std::int64_t i = rows.begin; i < rows.end; ++i)
      for (std::int64_t j = columns.begin; j < columns.end; ++j) {
        const Span h = window_at(i, g.kernel.h, g.stride.h, g.pad.h, height);
        const Span w = window_at(j, g.kernel.w, g.stride.w, g.pad.w, width);
        const float share = 1.0F / pool_area(g, h, w);
        const T* incoming = grad_y.data<T>() + ((n * grad_y.dim(2) + i) * grad_y.dim(3) + j) * channels;
#pragma omp simd
        for (std::int64_t c = 0; c < channels; ++c) grad[c] += share * load(incoming[c]);
      }
    sums.finish(row);
  });
}

}  // namespace

void CpuBackend::max_pool_forward(const Stream&, const PoolGeometry& g, const Tensor& x, const Tensor& y,
                                  const Tensor& indices) {
  with_float_type(x.dtype(), [&](auto type) { max_forward<decltype(type)>(g, x, y, indices); });
}

void CpuBackend::max_pool_backward(const Stream&, const PoolGeometry& g, const Tensor& indices,
                                   const Tensor& grad_y, const Tensor& grad_x) {
  with_float_type(grad_y.dtype(),
                  [&](auto type) { max_backward<decltype(type)>(g, indices, grad_y, grad_x); });
}

void CpuBackend::average_pool_forward(const Stream&, const PoolGeometry& g, const Tensor& x,
                                      const Tensor& y) {
  with_float_type(x.dtype(), [&](auto type) { average_forward<decltype(type)>(g, x, y); });
}

void CpuBackend::average_pool_backward(const Stream&, const PoolGeometry& g, const Tensor& grad_y,
                                       const Tensor& grad_x) {
  with_float_type(grad_y.dtype(), [&](auto type) { average_backward<decltype(type)>(g, grad_y, grad_x); });
}

}  // namespace qtrain
