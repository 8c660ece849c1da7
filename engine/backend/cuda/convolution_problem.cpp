#include "engine/backend/cuda/convolution_problem.h"

#include <fmt/format.h>

namespace qtrain::cuda {
namespace {

std::string str(const TensorLayout& t) {
  return fmt::format("{}[{}]", name_of(t.dtype), fmt::join(t.sizes, ", "));
}

void append(std::vector<std::int64_t>& key, const TensorLayout& t) {
  key.push_back(static_cast<std::int64_t>(t.dtype));
  key.insert(key.end(), t.sizes.begin(), t.sizes.end());  // the strides follow from them
}

}  // namespace

TensorLayout channels_last(const Shape& shape, DType dtype) {
  const std::int64_t c = shape[1];
  const std::int64_t h = shape[2];
  const std::int64_t w = shape[3];
  return {{shape[0], c, h, w}, {h * w * c, 1, w * c, c}, dtype};
}

TensorLayout one_per_channel(std::int64_t channels, DType dtype) {
  return {{1, channels, 1, 1}, {channels, 1, channels, channels}, dtype};
}

std::vector<std::int64_t> ConvolutionProblem::key() const {
  const ConvolutionGeometry& g = geometry;
  std::vector<std::int64_t> key{static_cast<std::int64_t>(kind),
                                static_cast<std::int64_t>(math),
                                g.stride.h,
                                g.stride.w,
                                g.pad_begin.h,
                                g.pad_begin.w,
                                g.pad_end.h,
                                g.pad_end.w,
                                g.dilation.h,
                                g.dilation.w,
                                g.groups};
  append(key, x);
  append(key, w);
  append(key, y);
  if (bias) append(key, *bias);
  return key;
}

std::string ConvolutionProblem::str() const {
  constexpr std::array names{"forward", "backward data", "backward weight"};
  const ConvolutionGeometry& g = geometry;
  return fmt::format("conv2d {} x {} w {} y {} stride {}x{} pad {}x{} to {}x{} dilation {}x{} groups {}{}{}",
                     names[static_cast<std::size_t>(kind)], cuda::str(x), cuda::str(w), cuda::str(y),
                     g.stride.h, g.stride.w, g.pad_begin.h, g.pad_begin.w, g.pad_end.h, g.pad_end.w,
                     g.dilation.h, g.dilation.w, g.groups,
                     bias ? fmt::format(" bias {}", name_of(bias->dtype)) : std::string(),
                     math == MathMode::tf32 ? " tf32" : "");
}

bool ConvolutionProblem::multiplies_float32() const {
  switch (kind) {
    case ConvolutionKind::forward:
      return x.dtype == DType::f32 || w.dtype == DType::f32;
    case ConvolutionKind::backward_data:
      return y.dtype == DType::f32 || w.dtype == DType::f32;
    case ConvolutionKind::backward_weight:
      return x.dtype == DType::f32 || y.dtype == DType::f32;
  }
  return true;
}

ConvolutionProblem convolution_problem(ConvolutionKind kind, const ConvolutionGeometry& geometry,
                                       const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& y,
                                       MathMode math) {
  ConvolutionProblem problem{.kind = kind,
                             .geometry = geometry,
                             .x = channels_last(x.shape(), x.dtype()),
                             .w = channels_last(w.shape(), w.dtype()),
                             .y = channels_last(y.shape(), y.dtype()),
                             .bias = std::nullopt,
                             .math = math};
  if (bias.defined()) problem.bias = one_per_channel(bias.numel(), bias.dtype());
  return problem;
}

}  // namespace qtrain::cuda
