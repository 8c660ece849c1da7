// What the libraries are told, without a GPU: layouts, keys and the exchange of row-major for column-major
// matrices.
#include <gtest/gtest.h>

#include <set>

#include "engine/backend/cuda/convolution_problem.h"
#include "engine/backend/cuda/matmul_problem.h"
#include "engine/core/layout.h"

namespace qtrain::cuda {
namespace {

TEST(ChannelsLast, StridesLeadToTheElementsInMemory) {
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{2, 1, 4, 5}, Shape{7, 6, 1, 1}, Shape{1, 1, 1, 1}}) {
    std::vector<std::int64_t> nchw(static_cast<std::size_t>(shape.numel()));
    for (std::size_t i = 0; i < nchw.size(); ++i) nchw[i] = static_cast<std::int64_t>(i);
    std::vector<std::int64_t> memory(nchw.size());
    to_channels_last(shape, nchw.data(), memory.data());
    const TensorLayout layout = channels_last(shape, DType::f32);
    std::int64_t expected = 0;
    for (std::int64_t n = 0; n < shape[0]; ++n)
      for (std::int64_t c = 0; c < shape[1]; ++c)
        for (std::int64_t h = 0; h < shape[2]; ++h)
          for (std::int64_t w = 0; w < shape[3]; ++w) {
            const std::int64_t at =
                n * layout.strides[0] + c * layout.strides[1] + h * layout.strides[2] + w * layout.strides[3];
            EXPECT_EQ(memory.at(static_cast<std::size_t>(at)), expected++) << shape.str();
          }
    EXPECT_EQ(layout.sizes, (std::array{shape[0], shape[1], shape[2], shape[3]}));
  }
}

TEST(OnePerChannel, NeighboursInMemory) {
  const TensorLayout bias = one_per_channel(5, DType::bf16);
  EXPECT_EQ(bias.sizes, (std::array<std::int64_t, 4>{1, 5, 1, 1}));
  EXPECT_EQ(bias.strides, (std::array<std::int64_t, 4>{5, 1, 5, 5}));
  EXPECT_EQ(bias.dtype, DType::bf16);
}

ConvolutionProblem some_convolution() {
  return {.kind = ConvolutionKind::forward,
          .geometry = {},
          .x = channels_last({8, 4, 9, 7}, DType::f32),
          .w = channels_last({6, 4, 3, 3}, DType::f32),
          .y = channels_last({8, 6, 7, 5}, DType::f32)};
}

TEST(ConvolutionProblem, EverythingThatMattersIsInTheKey) {
  std::vector<ConvolutionProblem> problems{some_convolution()};
  const auto with = [&](auto&& change) {
    ConvolutionProblem p = some_convolution();
    change(p);
    problems.push_back(p);
  };
  with([](auto& p) { p.kind = ConvolutionKind::backward_data; });
  with([](auto& p) { p.kind = ConvolutionKind::backward_weight; });
  with([](auto& p) { p.math = MathMode::tf32; });
  with([](auto& p) { p.geometry.stride.h = 2; });
  with([](auto& p) { p.geometry.stride.w = 2; });
  with([](auto& p) { p.geometry.pad_begin.h = 1; });
  with([](auto& p) { p.geometry.pad_begin.w = 1; });
  with([](auto& p) { p.geometry.pad_end.h = 1; });
  with([](auto& p) { p.geometry.pad_end.w = 1; });
  with([](auto& p) { p.geometry.dilation.h = 2; });
  with([](auto& p) { p.geometry.dilation.w = 2; });
  with([](auto& p) { p.geometry.groups = 2; });
  with([](auto& p) { p.bias = one_per_channel(6, DType::f32); });
  with([](auto& p) { p.bias = one_per_channel(6, DType::bf16); });
  for (const std::size_t i : {0U, 1U, 2U, 3U}) {
    with([&](auto& p) { p.x.sizes.at(i) += 1; });
    with([&](auto& p) { p.w.sizes.at(i) += 1; });
    with([&](auto& p) { p.y.sizes.at(i) += 1; });
  }
  with([](auto& p) { p.x.dtype = DType::bf16; });
  with([](auto& p) { p.w.dtype = DType::bf16; });
  with([](auto& p) { p.y.dtype = DType::bf16; });
  std::set<std::vector<std::int64_t>> keys;
  std::set<std::string> names;
  for (const ConvolutionProblem& p : problems) {
    keys.insert(p.key());
    names.insert(p.str());
  }
  EXPECT_EQ(keys.size(), problems.size());
  EXPECT_EQ(names.size(), problems.size());
  EXPECT_EQ(some_convolution().key(), some_convolution().key());
}

TEST(ConvolutionProblem, SaysWhatItIs) {
  ConvolutionProblem p = some_convolution();
  p.geometry.pad_end = {1, 2};
  p.bias = one_per_channel(6, DType::f32);
  EXPECT_EQ(p.str(),
            "conv2d forward x f32[8, 4, 9, 7] w f32[6, 4, 3, 3] y f32[8, 6, 7, 5] stride 1x1 pad 0x0 to 1x2 "
            "dilation 1x1 groups 1 bias f32");
}

TEST(ConvolutionProblem, KnowsWhichOperandsAreMultiplied) {
  ConvolutionProblem p = some_convolution();
  EXPECT_TRUE(p.multiplies_float32());
  p.x.dtype = p.w.dtype = DType::bf16;  // into a float32 sum
  EXPECT_FALSE(p.multiplies_float32());
  p.kind = ConvolutionKind::backward_data;  // y's gradient is float32
  EXPECT_TRUE(p.multiplies_float32());
  p.y.dtype = DType::bf16;
  p.x.dtype = DType::f32;
  EXPECT_FALSE(p.multiplies_float32());
  p.kind = ConvolutionKind::backward_weight;
  EXPECT_TRUE(p.multiplies_float32());
}

// A product as cuBLASLt defines it: result = op(left) op(right) + bias of its rows, all column-major.
std::vector<float> column_major_product(const MatmulProblem& p, const std::vector<float>& left,
                                        const std::vector<float>& right, const std::vector<float>& bias) {
  const auto element = [](const ColumnMajor& m, const std::vector<float>& values, std::int64_t r,
                          std::int64_t c) {
    if (m.transposed) std::swap(r, c);
    EXPECT_LT(r, m.rows);
    EXPECT_LT(c, m.columns);
    return values.at(static_cast<std::size_t>(r + c * m.leading));
  };
  const std::int64_t inner = p.left.transposed ? p.left.rows : p.left.columns;
  EXPECT_EQ(inner, p.right.transposed ? p.right.columns : p.right.rows);
  std::vector<float> result(static_cast<std::size_t>(p.result.columns * p.result.leading));
  for (std::int64_t r = 0; r < p.result.rows; ++r)
    for (std::int64_t c = 0; c < p.result.columns; ++c) {
      float sum = bias.empty() ? 0.0F : bias.at(static_cast<std::size_t>(r));
      for (std::int64_t k = 0; k < inner; ++k)
        sum += element(p.left, left, r, k) * element(p.right, right, k, c);
      result.at(static_cast<std::size_t>(r + c * p.result.leading)) = sum;
    }
  return result;
}

std::vector<float> small_integers(std::int64_t count, int seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>((static_cast<int>(i) * 7 + seed) % 11 - 5);
  return values;
}

TEST(MatmulProblem, ColumnMajorProductIsTheRowMajorOne) {
  constexpr std::int64_t m = 3;
  constexpr std::int64_t n = 5;
  constexpr std::int64_t k = 4;
  const std::vector<float> a = small_integers(m * k, 1);
  const std::vector<float> b = small_integers(k * n, 2);
  const std::vector<float> bias = small_integers(n, 3);
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const bool has_bias : {false, true}) {
        const Tensor ta = Tensor::empty(transpose_a ? Shape{k, m} : Shape{m, k});
        const Tensor tb = Tensor::empty(transpose_b ? Shape{n, k} : Shape{k, n});
        const Tensor tc = Tensor::empty({m, n});
        const MatmulProblem p = matmul_problem(ta, transpose_a, tb, transpose_b,
                                               has_bias ? Tensor::empty({n}) : Tensor(), tc, MathMode::fp32);
        EXPECT_EQ(p.bias.has_value(), has_bias);
        const std::vector<float> c = column_major_product(p, b, a, has_bias ? bias : std::vector<float>());
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = 0; j < n; ++j) {
            float sum = has_bias ? bias[static_cast<std::size_t>(j)] : 0.0F;
            for (std::int64_t l = 0; l < k; ++l)
              sum += a[static_cast<std::size_t>(transpose_a ? l * m + i : i * k + l)] *
                     b[static_cast<std::size_t>(transpose_b ? j * k + l : l * n + j)];
            EXPECT_EQ(c[static_cast<std::size_t>(i * n + j)], sum) << transpose_a << transpose_b << has_bias;
          }
      }
}

TEST(MatmulProblem, EverythingThatMattersIsInTheKey) {
  const auto problem = [](const Shape& a, bool transpose_a, const Shape& b, bool transpose_b, const Shape& c,
                          const Tensor& bias = {}, MathMode math = MathMode::fp32, DType dtype = DType::f32) {
    return matmul_problem(Tensor::empty(a, dtype), transpose_a, Tensor::empty(b, dtype), transpose_b, bias,
                          Tensor::empty(c, dtype), math);
  };
  const std::vector<MatmulProblem> problems{
      problem({4, 4}, false, {4, 4}, false, {4, 4}),
      problem({4, 4}, true, {4, 4}, false, {4, 4}),
      problem({4, 4}, false, {4, 4}, true, {4, 4}),
      problem({5, 4}, false, {4, 4}, false, {5, 4}),
      problem({4, 5}, false, {5, 4}, false, {4, 4}),
      problem({4, 4}, false, {4, 5}, false, {4, 5}),
      problem({4, 4}, false, {4, 4}, false, {4, 4}, Tensor::empty({4})),
      problem({4, 4}, false, {4, 4}, false, {4, 4}, Tensor::empty({4}, DType::bf16)),
      problem({4, 4}, false, {4, 4}, false, {4, 4}, {}, MathMode::tf32),
      problem({4, 4}, false, {4, 4}, false, {4, 4}, {}, MathMode::fp32, DType::bf16),
  };
  std::set<std::vector<std::int64_t>> keys;
  for (const MatmulProblem& p : problems) keys.insert(p.key());
  EXPECT_EQ(keys.size(), problems.size());
  EXPECT_EQ(problem({3, 4}, false, {4, 6}, false, {3, 6}).str(),
            "matmul a f32[3, 4] b f32[4, 6] c f32[3, 6]");
}

}  // namespace
}  // namespace qtrain::cuda
