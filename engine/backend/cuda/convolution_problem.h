// A convolution or one of its gradients as numbers: what a library is told, and the key under which its
// answer is kept. Plain C++, tested without a GPU.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend/geometry.h"
#include "engine/backend/settings.h"
#include "engine/core/dtype.h"
#include "engine/core/tensor.h"

namespace qtrain::cuda {

enum class ConvolutionKind : std::int64_t { forward, backward_data, backward_weight };

// Sizes in the order N, C, H, W with the distance in memory, in elements, from one to the next.
struct TensorLayout {
  std::array<std::int64_t, 4> sizes;
  std::array<std::int64_t, 4> strides;
  DType dtype;
};
TensorLayout channels_last(const Shape& shape, DType dtype);  // images, and filters likewise: O, kh, kw, I
TensorLayout one_per_channel(std::int64_t channels, DType dtype);  // [1, C, 1, 1]

struct ConvolutionProblem {
  ConvolutionKind kind = ConvolutionKind::forward;
  ConvolutionGeometry geometry;
  TensorLayout x, w, y;              // the gradients of these, where the kind says so
  std::optional<TensorLayout> bias;  // added to y
  MathMode math = MathMode::fp32;

  // Two problems with the same key have the same answers.
  std::vector<std::int64_t> key() const;
  std::string str() const;  // "conv2d forward x f32[8, 3, 32, 32] w f32[16, 3, 3, 3] ..."
  // What counts as one of two operands of a product: whether float32 numbers are multiplied.
  bool multiplies_float32() const;
};

ConvolutionProblem convolution_problem(ConvolutionKind kind, const ConvolutionGeometry& geometry,
                                       const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& y,
                                       MathMode math);

}  // namespace qtrain::cuda
