#include "engine/ops/convolution.h"

#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

struct Case {
  std::string name;
  Shape x;
  Shape weight;
  ConvolutionGeometry geometry{};
  bool bias = false;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

struct Reference {
  std::vector<double> y, grad_x, grad_weight, grad_bias;
};

// The definition, in double: one walk over all products gives the output and every gradient.
Reference reference(const Case& c, const std::vector<float>& x, const std::vector<float>& w,
                    const std::vector<float>& bias, const Shape& ys, const std::vector<float>& cotangent) {
  const ConvolutionGeometry& g = c.geometry;
  const Shape& xs = c.x;
  const Shape& ws = c.weight;
  Reference r{std::vector<double>(static_cast<std::size_t>(ys.numel())), std::vector<double>(x.size()),
              std::vector<double>(w.size()), std::vector<double>(static_cast<std::size_t>(ws[0]))};
  const std::int64_t outputs_a_group = ws[0] / g.groups;
  std::size_t at = 0;
  for (std::int64_t n = 0; n < ys[0]; ++n)
    for (std::int64_t o = 0; o < ys[1]; ++o)
      for (std::int64_t i = 0; i < ys[2]; ++i)
        for (std::int64_t j = 0; j < ys[3]; ++j, ++at) {
          const auto dy = static_cast<double>(cotangent[at]);
          r.y[at] = bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<std::size_t>(o)]);
          r.grad_bias[static_cast<std::size_t>(o)] += dy;
          for (std::int64_t k = 0; k < ws[1]; ++k)
            for (std::int64_t u = 0; u < ws[2]; ++u)
              for (std::int64_t v = 0; v < ws[3]; ++v) {
                const std::int64_t row = i * g.stride.h - g.pad_begin.h + u * g.dilation.h;
                const std::int64_t column = j * g.stride.w - g.pad_begin.w + v * g.dilation.w;
                if (row < 0 || row >= xs[2] || column < 0 || column >= xs[3]) continue;
                const std::int64_t channel = o / outputs_a_group * ws[1] + k;
                const auto in_x =
                    static_cast<std::size_t>(((n * xs[1] + channel) * xs[2] + row) * xs[3] + column);
                const auto in_w = static_cast<std::size_t>(((o * ws[1] + k) * ws[2] + u) * ws[3] + v);
                r.y[at] += static_cast<double>(x[in_x]) * static_cast<double>(w[in_w]);
                r.grad_x[in_x] += dy * static_cast<double>(w[in_w]);
                r.grad_weight[in_w] += dy * static_cast<double>(x[in_x]);
              }
        }
  return r;
}

class Convolution : public ::testing::TestWithParam<Case> {};

TEST_P(Convolution, EqualsItsDefinition) {
  const Case& c = GetParam();
  const std::vector<float> x = random_values(c.x.numel(), 1);
  const std::vector<float> w = random_values(c.weight.numel(), 2);
  const std::vector<float> b = c.bias ? random_values(c.weight[0], 3) : std::vector<float>{};
  for (const Device device : available_devices()) {
    Tensor tx = Tensor::from_values(c.x, x, device).set_requires_grad(true);
    Tensor tw = Tensor::from_values(c.weight, w, device).set_requires_grad(true);
    Tensor tb = c.bias ? Tensor::from_values({c.weight[0]}, b, device).set_requires_grad(true) : Tensor();
    const Tensor y = conv2d(tx, tw, tb, c.geometry);
    ASSERT_EQ(y.shape(), conv2d_shape(c.x, c.weight, c.geometry));
    const std::vector<float> cotangent = random_values(y.numel(), 4);
    const Reference want = reference(c, x, w, b, y.shape(), cotangent);
    EXPECT_TRUE(near(y, want.y, 2e-6));
    Tape::backward(y, Tensor::from_values(y.shape(), cotangent, device));
    EXPECT_TRUE(near(tx.grad(), want.grad_x, 2e-6)) << "gradient of x";
    EXPECT_TRUE(near(tw.grad(), want.grad_weight, 2e-6)) << "gradient of the weight";
    if (c.bias) {
      EXPECT_TRUE(near(tb.grad(), want.grad_bias, 2e-6)) << "gradient of the bias";
    }
  }
}

TEST_P(Convolution, PassesTheGradientCheck) {
  const Case& c = GetParam();
  std::vector<GradientInput> inputs{{"x", c.x}, {"weight", c.weight}};
  if (c.bias) inputs.push_back({"bias", {c.weight[0]}});
  const auto function = [&](const std::vector<Tensor>& in) {
    return conv2d(in[0], in[1], c.bias ? in[2] : Tensor(), c.geometry);
  };
  // Linear in each input: a large step costs nothing and drowns the rounding.
  EXPECT_TRUE(check_gradients(function, inputs, {.step = 0.25, .tolerance = 1e-4, .most_elements = 12}));
}

const Case cases[] = {
    {"Plain3x3", {2, 16, 7, 7}, {16, 16, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"Bias", {2, 16, 7, 7}, {16, 16, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}, true},
    {"NoPadding", {1, 8, 6, 5}, {8, 8, 3, 3}},
    {"Stride2", {2, 16, 8, 8}, {32, 16, 3, 3}, {.stride = {2, 2}, .pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"Stride2Odd",
     {2, 16, 9, 7},
     {16, 16, 3, 3},
     {.stride = {2, 2}, .pad_begin = {1, 1}, .pad_end = {1, 1}},
     true},
    {"StrideLeavesRowsOver", {1, 4, 8, 9}, {4, 4, 3, 3}, {.stride = {3, 4}}},
    {"StrideAboveKernel", {1, 16, 9, 9}, {16, 16, 2, 2}, {.stride = {3, 3}}},
    {"UnequalStrides",
     {1, 5, 9, 8},
     {7, 5, 3, 2},
     {.stride = {1, 3}, .pad_begin = {1, 0}, .pad_end = {0, 1}},
     true},
    {"Stem", {1, 3, 15, 15}, {16, 3, 7, 7}, {.stride = {2, 2}, .pad_begin = {3, 3}, .pad_end = {3, 3}}},
    {"CifarStem", {2, 3, 8, 8}, {16, 3, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"Pointwise", {2, 32, 4, 4}, {16, 32, 1, 1}},
    {"PointwiseStride2", {2, 16, 5, 5}, {32, 16, 1, 1}, {.stride = {2, 2}}, true},
    {"PointwisePadded", {1, 6, 3, 3}, {4, 6, 1, 1}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}, true},
    {"AsymmetricPadding", {1, 8, 5, 6}, {8, 8, 3, 3}, {.pad_begin = {0, 2}, .pad_end = {1, 0}}},
    {"SamePaddingStride2", {1, 16, 8, 8}, {16, 16, 3, 3}, {.stride = {2, 2}, .pad_end = {1, 1}}},
    {"PaddingAsLargeAsKernel", {1, 3, 4, 4}, {5, 3, 2, 2}, {.pad_begin = {2, 2}, .pad_end = {2, 2}}, true},
    {"Dilation2",
     {1, 16, 9, 9},
     {16, 16, 3, 3},
     {.pad_begin = {2, 2}, .pad_end = {2, 2}, .dilation = {2, 2}}},
    {"UnequalDilation",
     {1, 6, 10, 9},
     {4, 6, 3, 2},
     {.stride = {2, 1}, .pad_begin = {1, 1}, .dilation = {3, 2}},
     true},
    {"Groups2", {2, 32, 5, 5}, {32, 16, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}, .groups = 2}},
    {"GroupsOddChannels",
     {1, 9, 6, 5},
     {6, 3, 3, 3},
     {.stride = {2, 1}, .pad_begin = {1, 1}, .groups = 3},
     true},
    {"GroupsPointwise", {1, 12, 4, 3}, {8, 3, 1, 1}, {.groups = 4}},
    {"Depthwise", {2, 16, 7, 7}, {16, 1, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}, .groups = 16}},
    {"DepthwiseStride2",
     {1, 24, 7, 6},
     {24, 1, 3, 3},
     {.stride = {2, 2}, .pad_begin = {1, 1}, .pad_end = {1, 1}, .groups = 24},
     true},
    {"DepthwiseOddChannels",
     {1, 5, 6, 6},
     {5, 1, 5, 5},
     {.pad_begin = {2, 2}, .pad_end = {2, 2}, .groups = 5}},
    {"DepthwiseMultiplier",
     {1, 4, 5, 5},
     {8, 1, 3, 3},
     {.pad_begin = {1, 1}, .pad_end = {1, 1}, .groups = 4},
     true},
    {"ChannelsNotOf16", {2, 19, 5, 5}, {23, 19, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}, true},
    {"OneChannel", {1, 1, 6, 6}, {1, 1, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"WholeImageKernel", {2, 17, 4, 3}, {10, 17, 4, 3}, {}, true},
    {"EvenKernel", {1, 16, 6, 6}, {8, 16, 4, 4}, {.pad_begin = {1, 1}, .pad_end = {2, 2}}},
    {"RowKernel", {1, 4, 5, 9}, {4, 4, 1, 7}, {.pad_begin = {0, 3}, .pad_end = {0, 3}}},
    {"FewPixelsManyChannels", {3, 128, 2, 2}, {144, 128, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"FewPixelsBias",
     {2, 130, 3, 3},
     {128, 130, 3, 3},
     {.stride = {2, 2}, .pad_begin = {1, 1}, .pad_end = {1, 1}},
     true},
    {"FewPixelsUneven",
     {2, 128, 8, 4},
     {131, 128, 3, 2},
     {.stride = {4, 2}, .pad_begin = {0, 2}, .pad_end = {3, 0}, .dilation = {2, 3}}},
    {"OnePixel", {3, 7, 1, 1}, {5, 7, 1, 1}, {}, true},
};

INSTANTIATE_TEST_SUITE_P(Geometries, Convolution, ::testing::ValuesIn(cases),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace qtrain
