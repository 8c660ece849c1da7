#include "engine/backend/cuda/kernels.h"
#include "engine/kernels/direct_convolution.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/grouped.h"
#include "engine/kernels/scalar_functors.h"

namespace qtrain::cuda {
namespace {

template <class T>
struct PlusBias {
  const T* biases;
  float bias = 0;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t channel) { bias = load(biases[channel]); }
  QTRAIN_HOST_DEVICE float operator()(float y) const { return y + bias; }
};

// Channels are innermost in memory.
Grouping by_channel(const Tensor& t) {
  return {.outer = 1, .inner = t.dim(1), .run = 1};
}

}  // namespace

void sum_channels(const Stream& stream, const Tensor& grad_y, const Tensor& grad_bias) {
  const auto sum = [&](float* sums) {
    with_float_type(grad_y.dtype(), [&](auto element) {
      using T = decltype(element);
      reduce_groups<1, Sum>(stream, grad_y.numel(), by_channel(grad_y), Itself(), sums,
                            static_cast<const T*>(grad_y.data<T>()));
    });
  };
  if (grad_bias.dtype() == DType::f32) return sum(grad_bias.data<float>());
  const Scratch<float> sums(stream, grad_bias.numel());
  sum(sums.data());
  map(stream, grad_bias.numel(), Copied(), grad_bias.data<BFloat16>(),
      static_cast<const float*>(sums.data()));
}

void add_channels(const Stream& stream, const Tensor& y, const Tensor& bias) {
  with_float_type(y.dtype(), [&](auto element) {
    using T = decltype(element);
    with_float_type(bias.dtype(), [&](auto of_bias) {
      using B = decltype(of_bias);
      map_groups(stream, y.numel(), by_channel(y), PlusBias<B>{bias.data<B>()}, y.data<T>(),
                 static_cast<const T*>(y.data<T>()));
    });
  });
}

void convolution_direct_forward(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x,
                                const Tensor& w, const Tensor& y) {
  with_float_type(x.dtype(), [&](auto element) {
    using T = decltype(element);
    for_each(stream, y.numel(),
             ConvolutionForward<T>{ConvolutionSizes(g, x.shape(), w.shape(), y.shape()), x.data<T>(),
                                   w.data<T>(), y.data<T>()});
  });
}

void convolution_direct_backward_data(const Stream& stream, const ConvolutionGeometry& g, const Tensor& w,
                                      const Tensor& grad_y, const Tensor& grad_x) {
  with_float_type(w.dtype(), [&](auto element) {
    using T = decltype(element);
    for_each(stream, grad_x.numel(),
             ConvolutionBackwardData<T>{ConvolutionSizes(g, grad_x.shape(), w.shape(), grad_y.shape()),
                                        w.data<T>(), grad_y.data<T>(), grad_x.data<T>()});
  });
}

void convolution_direct_backward_weight(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x,
                                        const Tensor& grad_y, const Tensor& grad_w) {
  with_float_type(x.dtype(), [&](auto element) {
    using T = decltype(element);
    for_each(stream, grad_w.numel(),
             ConvolutionBackwardWeight<T>{ConvolutionSizes(g, x.shape(), grad_w.shape(), grad_y.shape()),
                                          x.data<T>(), grad_y.data<T>(), grad_w.data<T>()});
  });
}

}  // namespace qtrain::cuda
