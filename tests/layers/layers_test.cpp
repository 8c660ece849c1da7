#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/autograd/tape.h"
#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/ops/reduce.h"
#include "layers/activation.h"
#include "layers/conv2d.h"
#include "layers/dropout.h"
#include "layers/init.h"
#include "layers/linear.h"
#include "layers/normalization.h"
#include "layers/pooling.h"
#include "layers/sequential.h"

namespace qtrain {
namespace {

Tensor numbered(const Shape& shape, float from = 0) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), from);
  return Tensor::from_values(shape, values);
}

TEST(Conv2d, ExposesItsGeometry) {
  Conv2d conv({.in_channels = 4,
               .out_channels = 6,
               .kernel = {3, 5},
               .stride = square(2),
               .padding = {1, 2},
               .groups = 2});
  EXPECT_EQ(conv.weight().shape(), (Shape{6, 2, 3, 5}));
  EXPECT_EQ(conv.bias().shape(), (Shape{6}));
  EXPECT_EQ(conv.in_channels(), 4);
  EXPECT_EQ(conv.kernel(), (Extent{3, 5}));
  EXPECT_EQ(conv.describe(), "Conv2d(4 -> 6, kernel 3x5, stride 2, padding 1x2, 2 groups, bias)");
  EXPECT_EQ(conv(Tensor::zeros({1, 4, 8, 8})).shape(), (Shape{1, 6, 4, 4}));
}

TEST(Conv2d, ComputesAndPassesGradients) {
  Conv2d conv({.in_channels = 1, .out_channels = 1, .kernel = square(2)});
  conv.weight().copy_from(numbered({1, 1, 2, 2}));
  conv.bias().copy_from(Tensor::full({1}, 10));
  const Tensor y = conv(numbered({1, 1, 2, 2}, 1));
  EXPECT_EQ(y.values(), std::vector<float>{0 * 1 + 1 * 2 + 2 * 3 + 3 * 4 + 10});
  Tape::backward(sum(y));
  EXPECT_EQ(conv.weight().grad().values(), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(conv.bias().grad().values(), std::vector<float>{1});
}

TEST(Conv2d, RefusesImpossibleSizes) {
  EXPECT_THROW(Conv2d({.in_channels = 0, .out_channels = 1}), ValueError);
  EXPECT_THROW(Conv2d({.in_channels = 1, .out_channels = 1, .kernel = {3, 0}}), ValueError);
  EXPECT_THROW(Conv2d({.in_channels = 1, .out_channels = 1, .padding = {-1, 0}}), ValueError);
  EXPECT_THROW(Conv2d({.in_channels = 4, .out_channels = 6, .groups = 4}), ValueError);
  EXPECT_THROW(Conv2d(Tensor{}, Tensor{}, ConvolutionGeometry{}), ValueError);
  EXPECT_THROW(Conv2d(Tensor::zeros({2, 2}), Tensor{}, ConvolutionGeometry{}), ValueError);
}

TEST(Linear, ComputesAndRefusesImpossibleSizes) {
  Linear fc(2, 3);
  fc.weight().copy_from(numbered({3, 2}));
  fc.bias().copy_from(numbered({3}, 1));
  EXPECT_EQ(fc(numbered({1, 2}, 1)).values(), (std::vector<float>{3, 10, 17}));
  EXPECT_EQ(fc.describe(), "Linear(2 -> 3, bias)");
  EXPECT_FALSE(Linear(2, 3, false).bias().defined());
  EXPECT_THROW(Linear(0, 3), ValueError);
  EXPECT_THROW(Linear(Tensor::zeros({3}), Tensor{}), ValueError);
}

TEST(BatchNorm2d, TracksStatisticsOnlyInTraining) {
  BatchNorm2d bn(1);
  const Tensor x = Tensor::from_values({4, 1, 1, 1}, {1, 2, 3, 6});  // mean 3, unbiased variance 14/3
  const auto count = [&] { return bn.named_buffers()[2].tensor.values<std::int64_t>()[0]; };
  bn.evaluate();
  bn(x);
  EXPECT_EQ(count(), 0);
  bn.train();
  const std::vector<float> y = bn(x).values();
  EXPECT_EQ(count(), 1);
  EXPECT_NEAR(bn.running_mean().item(), 0.3F, 1e-6);
  EXPECT_NEAR(bn.running_variance().item(), 0.9F + 0.1F * 14 / 3, 1e-6);
  EXPECT_NEAR(y[3], 3 / std::sqrt(3.5), 1e-5);
  bn.evaluate();
  EXPECT_NEAR(bn(x).values()[0], (1 - 0.3) / std::sqrt(0.9 + 1.4 / 3), 1e-5);
}

TEST(BatchNorm2d, FusesReluAndResidual) {
  BatchNorm2d bn(2);
  bn.evaluate();
  const Tensor x = Tensor::from_values({1, 2, 1, 1}, {-1, 2});
  const Tensor residual = Tensor::from_values({1, 2, 1, 1}, {3, -4});
  EXPECT_NEAR(bn.forward(x, true).values()[0], 0, 1e-6);
  EXPECT_NEAR(bn.forward(x, false, residual).values()[1], -2, 1e-4);
  EXPECT_NEAR(bn.forward(x, true, residual).values()[0], 2, 1e-4);
  EXPECT_NEAR(bn.forward(x, true, residual).values()[1], 0, 1e-6);
}

TEST(BatchNorm2d, RefusesArgumentsOutOfRange) {
  EXPECT_THROW(BatchNorm2d(0), ValueError);
  EXPECT_THROW(BatchNorm2d(1, -1.0F), ValueError);
  EXPECT_THROW(BatchNorm2d(1, 1e-5F, 1.5F), ValueError);
  EXPECT_THROW(BatchNorm2d(1, NAN), ValueError);
}

TEST(Activations, AreTheirFunctions) {
  const Tensor x = Tensor::from_values({3}, {-2, 0.5F, 8});
  const auto expect = [&](Module& m, const std::vector<double>& y) {
    const std::vector<float> got = m(x).values();
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(got[i], y[i], 1e-5) << m.describe();
  };
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  ReLU relu;
  expect(relu, {0, 0.5, 8});
  ReLU6 relu6;
  expect(relu6, {0, 0.5, 6});
  LeakyReLU leaky(0.1F);
  expect(leaky, {-0.2, 0.5, 8});
  Hardtanh hardtanh;
  expect(hardtanh, {-1, 0.5, 1});
  Sigmoid logistic;
  expect(logistic, {sigmoid(-2), sigmoid(0.5), sigmoid(8)});
  Tanh tanh;
  expect(tanh, {std::tanh(-2), std::tanh(0.5), std::tanh(8)});
  SiLU silu;
  expect(silu, {-2 * sigmoid(-2), 0.5 * sigmoid(0.5), 8 * sigmoid(8)});
  Hardswish hardswish;
  expect(hardswish, {-2.0 / 6, 0.5 * 3.5 / 6, 8});
  Identity identity;
  expect(identity, {-2, 0.5, 8});
  EXPECT_THROW(Hardtanh(1, 1), ValueError);
}

TEST(Pooling, AreTheirFunctions) {
  const Tensor x = numbered({1, 2, 2, 2});
  EXPECT_EQ(MaxPool2d(PoolGeometry{}).forward(x).values(), (std::vector<float>{3, 7}));
  EXPECT_EQ(AvgPool2d(PoolGeometry{}).forward(x).values(), (std::vector<float>{1.5F, 5.5F}));
  EXPECT_EQ(GlobalAvgPool2d().forward(x).shape(), (Shape{1, 2, 1, 1}));
  EXPECT_EQ(Flatten().forward(x).values(), x.values());
  EXPECT_EQ(Flatten().forward(x).shape(), (Shape{1, 8}));
  EXPECT_EQ(MaxPool2d({.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}).describe(),
            "MaxPool2d(kernel 3x3, stride 2x2, padding 1x1)");
}

TEST(Dropout, MasksDependOnSeedLayerAndStepAlone) {
  const Tensor x = Tensor::full({1000}, 1);
  const auto run = [&](std::uint64_t seed, std::uint64_t layer, int step) {
    Dropout dropout(0.25F);
    dropout.set_stream(seed, layer);
    std::vector<float> y;
    for (int i = 0; i <= step; ++i) y = dropout(x).values();
    return y;
  };
  const std::vector<float> y = run(1, 0, 0);
  const auto zeros = std::count(y.begin(), y.end(), 0.0F);
  EXPECT_NEAR(static_cast<double>(zeros), 250, 50);
  EXPECT_EQ(std::count(y.begin(), y.end(), 1 / 0.75F), 1000 - zeros);
  EXPECT_EQ(y, run(1, 0, 0));
  EXPECT_NE(y, run(2, 0, 0));
  EXPECT_NE(y, run(1, 1, 0));
  EXPECT_NE(y, run(1, 0, 1));
}

TEST(Dropout, DrawsTheStreamOfItsStepInNchwOrder) {
  for (const Shape& shape : {Shape{2, 3, 5, 7}, Shape{9, 4}, Shape{1}}) {
    const Tensor x = numbered(shape, 1);
    Dropout layer(0.3F);
    layer.set_stream(11, 4);
    (void)layer(x);
    Tensor leaf = x.clone();
    leaf.set_requires_grad(true);
    const Tensor y = layer(leaf);
    Tape::backward(y, Tensor::full(shape, 2));
    RandomStream random(11, RandomPurpose::dropout, 4, 1);
    const std::vector<float> values = x.values();
    const std::vector<float> got = y.values();
    const std::vector<float> grad = leaf.grad().values();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float m =
          static_cast<double>(random.next()) < static_cast<double>(0.3F) * 0x1p32 ? 0 : 1 / (1 - 0.3F);
      EXPECT_EQ(got[i], values[i] * m);
      EXPECT_EQ(grad[i], 2 * m) << "forward and backward have one mask";
    }
  }
}

TEST(Dropout, ResumesFromItsState) {
  const Tensor x = Tensor::full({64}, 1);
  Dropout straight;
  straight(x);
  Dropout resumed;
  resumed.load_state_dict(straight.state_dict());
  EXPECT_EQ(straight(x).values(), resumed(x).values());
}

TEST(Dropout, IsTheIdentityInEvaluationAndCheckedAtItsEnds) {
  const Tensor x = Tensor::full({64}, 3);
  Dropout dropout;
  dropout.evaluate();
  EXPECT_EQ(dropout(x).values(), x.values());
  EXPECT_EQ(Dropout(0).forward(x).values(), x.values());
  EXPECT_EQ(Dropout(1).forward(x).values(), std::vector<float>(64, 0.0F));
  EXPECT_THROW(Dropout(-0.1F), ValueError);
  EXPECT_THROW(Dropout(NAN), ValueError);
}

struct Moments {
  double mean;
  double deviation;
  float largest;
};

Moments moments(const Tensor& t) {
  const std::vector<float> v = t.values();
  double sum = 0;
  double squares = 0;
  float largest = 0;
  for (const float e : v) {
    sum += static_cast<double>(e);
    squares += static_cast<double>(e) * static_cast<double>(e);
    largest = std::max(largest, std::fabs(e));
  }
  const auto n = static_cast<double>(v.size());
  return {sum / n, std::sqrt(squares / n - sum * sum / n / n), largest};
}

TEST(Init, FollowsPyTorchsRules) {
  Sequential net{std::make_shared<Conv2d>(
                     Conv2dOptions{.in_channels = 32, .out_channels = 64, .kernel = square(3), .groups = 2}),
                 std::make_shared<BatchNorm2d>(64), std::make_shared<Linear>(100, 200)};
  net.child("1")->named_buffers()[0].tensor.copy_from(Tensor::full({64}, 5));
  reset_parameters(net, 3);
  const NamedTensors p = net.named_parameters();
  EXPECT_EQ(fans_of(p[0].tensor).in, 16 * 9);
  EXPECT_EQ(fans_of(p[0].tensor).out, 64 * 9);
  const double fan_out = 64 * 9;
  EXPECT_NEAR(moments(p[0].tensor).deviation, std::sqrt(2 / fan_out), 0.002);
  EXPECT_NEAR(moments(p[0].tensor).mean, 0, 0.002);
  EXPECT_LE(moments(p[1].tensor).largest, 1 / std::sqrt(16 * 9.0F));
  EXPECT_GT(moments(p[1].tensor).largest, 0.8F / std::sqrt(16 * 9.0F));
  EXPECT_EQ(p[2].tensor.values(), std::vector<float>(64, 1.0F));
  EXPECT_EQ(p[3].tensor.values(), std::vector<float>(64, 0.0F));
  EXPECT_EQ(net.named_buffers()[0].tensor.values(), std::vector<float>(64, 0.0F));
  EXPECT_NEAR(moments(p[4].tensor).deviation, 0.1 / std::sqrt(3), 0.002);
  EXPECT_LE(moments(p[4].tensor).largest, 0.1F);
  EXPECT_GT(moments(p[5].tensor).largest, 0.08F);
  reset_parameters(net, 3, ConvolutionInit::kaiming_uniform);
  EXPECT_LE(moments(p[0].tensor).largest, 1 / std::sqrt(16 * 9.0F));
}

TEST(Init, DependsOnTheSeedAlone) {
  const auto values = [](std::uint64_t seed) {
    Sequential net{std::make_shared<Linear>(3, 3, false), std::make_shared<Linear>(3, 3, false)};
    reset_parameters(net, seed);
    std::vector<std::vector<float>> all;
    for (const Tensor& p : net.parameters()) all.push_back(p.values());
    return all;
  };
  EXPECT_EQ(values(1), values(1));
  EXPECT_NE(values(1), values(2));
  EXPECT_NE(values(1)[0], values(1)[1]);
  EXPECT_THROW(fans_of(Tensor::zeros({3})), ShapeError);
}

}  // namespace
}  // namespace qtrain
