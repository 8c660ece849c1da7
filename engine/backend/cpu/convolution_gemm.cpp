#include "engine/backend/cpu/convolution_gemm.h"

#include <algorithm>

#include "engine/backend/cpu/onednn.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/parallel.h"

namespace qtrain::convolution_gemm {
namespace {

// Row (n, i, j) holds the window of output pixel (i, j) of image n, in the order of a stored filter (kh, kw,
// channels); what lies outside of the image is 0.
template <class T>
void gather_windows(const ConvolutionGeometry& g, const Tensor& x, const Shape& w, const Shape& y,
                    T* windows) {
  const std::int64_t channels = x.dim(1);
  const std::int64_t height = x.dim(2);
  const std::int64_t width = x.dim(3);
  const T* in = x.data<T>();
  parallel_for(y[0] * y[2] * y[3], 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t j = row % y[3];
      const std::int64_t i = row / y[3] % y[2];
      const std::int64_t n = row / y[3] / y[2];
      T* out = windows + row * w[2] * w[3] * channels;
      for (std::int64_t u = 0; u < w[2]; ++u)
        for (std::int64_t v = 0; v < w[3]; ++v, out += channels) {
          const std::int64_t r = i * g.stride.h - g.pad_begin.h + u * g.dilation.h;
          const std::int64_t c = j * g.stride.w - g.pad_begin.w + v * g.dilation.w;
          if (r >= 0 && r < height && c >= 0 && c < width)
            std::copy_n(in + ((n * height + r) * width + c) * channels, channels, out);
          else
            std::fill_n(out, channels, T{});
        }
    }
  });
}

std::int64_t rows_of(const Shape& y) {
  return y[0] * y[2] * y[3];
}
std::int64_t window_size(const Shape& w) {
  return w[1] * w[2] * w[3];
}

}  // namespace

bool preferred(const ConvolutionGeometry& g, const Shape& w, const Shape& y) {
  constexpr std::int64_t few_pixels = 4;
  constexpr std::int64_t many_channels = 128;
  return g.groups == 1 && w[2] * w[3] > 1 && y[2] * y[3] <= few_pixels && w[0] >= many_channels &&
         w[1] >= many_channels;
}

bool forward(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x, const Tensor& w,
             const Tensor& bias, const Tensor& y) {
  const std::int64_t rows = rows_of(y.shape());
  const std::int64_t size = window_size(w.shape());
  return with_float_type(x.dtype(), [&](auto type) {
    const Scratch<decltype(type)> windows(stream, rows * size);
    gather_windows(g, x, w.shape(), y.shape(), windows.data());
    return onednn::multiply(x.dtype(), {windows.data(), rows, size}, {w.raw(), w.dim(0), size, true},
                            bias.defined() ? bias.raw() : nullptr, {y.raw(), rows, w.dim(0)});
  });
}

bool backward_weight(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x,
                     const Tensor& grad_y, const Tensor& grad_w) {
  const std::int64_t rows = rows_of(grad_y.shape());
  const std::int64_t size = window_size(grad_w.shape());
  return with_float_type(x.dtype(), [&](auto type) {
    const Scratch<decltype(type)> windows(stream, rows * size);
    gather_windows(g, x, grad_w.shape(), grad_y.shape(), windows.data());
    return onednn::multiply(x.dtype(), {grad_y.raw(), rows, grad_w.dim(0), true},
                            {windows.data(), rows, size}, nullptr, {grad_w.raw(), grad_w.dim(0), size});
  });
}

}  // namespace qtrain::convolution_gemm
