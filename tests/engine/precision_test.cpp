// bf16: conversion, and every op on bf16 tensors against the same op in float32 on the same numbers.
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/element.h"
#include "engine/ops/activation.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/cast.h"
#include "engine/ops/convolution.h"
#include "engine/ops/loss.h"
#include "engine/ops/matmul.h"
#include "engine/ops/pooling.h"
#include "engine/ops/rearrange.h"
#include "engine/ops/reduce.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::near;
using testing_support::random_values;
using testing_support::Range;

constexpr double rounding = 1.0 / 256;  // twice the largest relative error of one rounding to 8 bits

std::vector<float> rounded(std::vector<float> values) {
  for (float& v : values) v = to_float(to_bfloat16(v));
  return values;
}

std::vector<float> as_floats(const Tensor& t) {
  return cast(t, DType::f32).values();
}

TEST(Cast, RoundsToNearestEven) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  const auto bits = [](std::uint32_t pattern) { return std::bit_cast<float>(pattern); };
  const std::pair<float, std::uint32_t> cases[] = {
      {1.0F, 0x3f800000},
      {bits(0x3f808000), 0x3f800000},  // halfway: the lower neighbour is even
      {bits(0x3f818000), 0x3f820000},  // halfway: the upper one is
      {bits(0x3f808001), 0x3f810000},
      {bits(0x3f80ffff), 0x3f810000},
      {-bits(0x3f818000), 0xbf820000},
      {0.0F, 0},
      {-0.0F, 0x80000000},
      {infinity, 0x7f800000},
      {-infinity, 0xff800000},
      {largest, 0x7f800000},                                  // rounds up to infinity
      {bits(0x7f7f7fff), 0x7f7f0000},                         // the largest that doesn't
      {bits(0x00400000), 0x00400000},                         // a denormal of both types
      {bits(0x00000001), 0},                                  // too small for bf16
      {bits(0x00008001), 0x00010000},                         // its smallest denormal
      {std::numeric_limits<float>::quiet_NaN(), 0x7fff0000},  // stays a NaN,
      {bits(0x7f800001), 0x7fff0000},
      {bits(0xff800001), 0x7fff0000},  // also where only lower bits say so
  };
  for (const Device device : available_devices())
    for (const auto& [value, expected] : cases) {
      const Tensor narrow = cast(Tensor::from_values({1}, {value}, device), DType::bf16);
      ASSERT_EQ(narrow.dtype(), DType::bf16);
      EXPECT_EQ(std::bit_cast<std::uint32_t>(cast(narrow, DType::f32).values()[0]), expected)
          << std::hex << std::bit_cast<std::uint32_t>(value);
    }
}

TEST(Cast, EveryBf16NumberComesBack) {
  std::vector<BFloat16> all;
  for (std::uint32_t b = 0; b < 0x10000; ++b) all.push_back({static_cast<std::uint16_t>(b)});
  const Shape shape{static_cast<std::int64_t>(all.size())};
  for (const Device device : available_devices()) {
    const Tensor there = Tensor::from_values<BFloat16>(shape, all, device);
    const std::vector<BFloat16> back = cast(cast(there, DType::f32), DType::bf16).values<BFloat16>();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool nan = (all[i].bits & 0x7fff) > 0x7f80;
      ASSERT_EQ(back[i].bits, nan ? 0x7fff : all[i].bits) << i;
    }
  }
}

TEST(Cast, OfTheTypeThatItHasIsTheTensorItself) {
  const Tensor x = Tensor::full({3}, 1);
  EXPECT_TRUE(cast(x, DType::f32).shares_storage_with(x));
  EXPECT_THROW(cast(x, DType::i32), DTypeError);
  EXPECT_THROW(cast(Tensor::zeros({3}, DType::i32), DType::f32), DTypeError);
  EXPECT_THROW(cast(Tensor(), DType::f32), ValueError);
}

// Who saves a cast's output keeps its input, and leaves get their gradients in f32.
TEST(Cast, IsMadeAgainWhenBackwardNeedsIt) {
  Tensor x = Tensor::from_values({2}, {1.5F, -2.0F});
  x.set_requires_grad(true);
  const Tensor y = cast(x, DType::bf16);
  const Tensor loss = sum(multiply(y, y));
  for (const auto& node : Tape::nodes(loss))
    for (const SavedTensor* saved : node->saved())
      EXPECT_TRUE(saved->recomputed() || saved->bytes() == x.bytes()) << node->name();
  Tape::backward(loss);
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_EQ(x.grad().values(), (std::vector<float>{3, -4}));
}

TEST(Precision, OnlyF32LeavesCollectGradients) {
  EXPECT_THROW(Tensor::zeros({2}, DType::bf16).set_requires_grad(true), DTypeError);
}

TEST(Precision, GradientsHaveTheTypeOfTheirTensor) {
  Tensor x = Tensor::full({2}, 1);
  x.set_requires_grad(true);
  EXPECT_THROW(Tape::backward(cast(x, DType::bf16), Tensor::zeros({2})), DTypeError);
  EXPECT_THROW(Tape::backward(scale(x, 2), Tensor::zeros({2}, DType::bf16)), DTypeError);
}

TEST(Precision, GradientsOfSeveralUsesAddUp) {
  Tensor x = Tensor::from_values({2}, {1, 2});
  x.set_requires_grad(true);
  const Tensor y = cast(x, DType::bf16);
  const Tensor z = add(scale(y, 3), multiply(y, y));
  Tape::backward(sum(add(z, relu(y))));
  EXPECT_EQ(x.grad().values(), (std::vector<float>{3 + 2 + 1, 3 + 4 + 1}));
}

TEST(Precision, TheFiniteCheckSeesBf16) {
  const FiniteCheckGuard guard;
  const Tensor large = cast(Tensor::full({2}, 3e38F), DType::bf16);
  EXPECT_THROW(scale(large, 10), NumericError);
}

TEST(Precision, TheLossTakesF32) {
  const Tensor labels = Tensor::zeros({2}, DType::i64);
  EXPECT_THROW(softmax_cross_entropy(Tensor::zeros({2, 3}, DType::bf16), labels), DTypeError);
}

using Function = std::function<Tensor(const std::vector<Tensor>&)>;

struct Case {
  std::string name;
  Function op;
  std::vector<Shape> shapes;
  // Each element is computed alone: in float32, then rounded once.
  bool elementwise = false;
  std::vector<bool> masters{};  // inputs that stay f32, as weights do
  double gradient_tolerance = 2 * rounding;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

std::vector<Case> cases() {
  using T = std::vector<Tensor>;
  const Shape images{2, 5, 7, 6};
  std::vector<Case> all;
  const auto one = [&](std::string name, Tensor (*op)(const Tensor&)) {
    all.push_back({std::move(name), [op](const T& t) { return op(t[0]); }, {{3, 71}}, true});
  };
  one("relu", relu);
  one("relu6", relu6);
  one("sigmoid", sigmoid);
  one("tanh", tanh);
  one("silu", silu);
  one("hard_sigmoid", hard_sigmoid);
  one("hard_swish", hard_swish);
  all.push_back({"leaky_relu", [](const T& t) { return leaky_relu(t[0], 0.1F); }, {images}, true});
  all.push_back({"clamp", [](const T& t) { return clamp(t[0], -0.5F, 0.7F); }, {images}, true});
  all.push_back({"scale", [](const T& t) { return scale(t[0], 0.3F); }, {images}, true});
  all.push_back({"shift", [](const T& t) { return shift(t[0], 0.3F); }, {images}, true});
  for (const auto& [suffix, b] : {std::pair{"", images}, {"_channels", Shape{1, 5, 1, 1}}}) {
    all.push_back(
        {"add" + std::string(suffix), [](const T& t) { return add(t[0], t[1]); }, {images, b}, true});
    all.push_back({"subtract" + std::string(suffix),
                   [](const T& t) { return subtract(t[0], t[1]); },
                   {images, b},
                   true});
    all.push_back({"multiply" + std::string(suffix),
                   [](const T& t) { return multiply(t[0], t[1]); },
                   {images, b},
                   true});
    all.push_back({"divide" + std::string(suffix),
                   [](const T& t) { return divide(t[0], shift(relu(t[1]), 0.5F)); },
                   {images, b}});
    all.back().gradient_tolerance = 6 * rounding;  // of a channel's divisor: a sum whose terms cancel
  }
  all.push_back({"reshape", [](const T& t) { return reshape(t[0], {6, 70}); }, {images}, true});
  all.push_back({"reshape_view", [](const T& t) { return reshape(t[0], {4, 6}); }, {{2, 12}}, true});
  all.push_back({"flatten", [](const T& t) { return flatten(t[0]); }, {images}, true});
  all.push_back({"concat", [](const T& t) { return concat(t, 1); }, {images, {2, 3, 7, 6}}, true});
  all.push_back({"pad2d", [](const T& t) { return pad2d(t[0], {1, 2}, {0, 3}, 0.75F); }, {images}, true});
  all.push_back({"sum", [](const T& t) { return sum(t[0]); }, {images}});
  all.push_back({"mean", [](const T& t) { return mean(t[0]); }, {images}});
  all.push_back({"sum_dims", [](const T& t) { return sum(t[0], std::vector<std::size_t>{0, 2}); }, {images}});
  all.push_back({"max_pool",
                 [](const T& t) {
                   return max_pool2d(t[0], {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}});
                 },
                 {images},
                 true});
  all.push_back({"average_pool",
                 [](const T& t) {
                   return average_pool2d(t[0], {.kernel = {3, 2}, .stride = {2, 1}, .pad = {1, 1}});
                 },
                 {images}});
  all.push_back({"global_average_pool", [](const T& t) { return global_average_pool2d(t[0]); }, {images}});
  all.push_back({"matmul", [](const T& t) { return matmul(t[0], t[1]); }, {{9, 33}, {33, 20}}});
  all.push_back({"linear",
                 [](const T& t) { return linear(t[0], t[1], t[2]); },
                 {{9, 33}, {10, 33}, {10}},
                 false,
                 {false, true, true}});
  const auto batch_norm = [&](std::string name, bool relu, bool residual, bool training) {
    Case c{"batch_norm" + std::move(name),
           [=](const T& t) {
             const Shape channels{t[1].numel()};
             const BatchNormState state{t[1], t[2], Tensor::zeros(channels, DType::f32, t[0].device()),
                                        Tensor::full(channels, 1, t[0].device())};
             const auto run = training ? batch_norm_training : batch_norm_evaluation;
             return run(t[0], state, {.relu = relu}, residual ? t[3] : Tensor());
           },
           {images, {5}, {5}},
           false,
           {false, true, true, false}};
    if (residual) c.shapes.push_back(images);
    all.push_back(std::move(c));
  };
  batch_norm("", false, false, true);
  batch_norm("_relu", true, false, true);
  batch_norm("_residual", false, true, true);
  batch_norm("_residual_relu", true, true, true);
  batch_norm("_evaluation", true, true, false);
  const auto convolution = [&](std::string name, const Shape& x, const Shape& w, ConvolutionGeometry g,
                               bool bias) {
    Case c{"conv_" + std::move(name),
           [g](const T& t) { return conv2d(t[0], t[1], t.size() > 2 ? t[2] : Tensor(), g); },
           {x, w},
           false,
           {false, true, true}};
    if (bias) c.shapes.push_back({w[0]});
    all.push_back(std::move(c));
  };
  convolution("first_layer", {2, 3, 16, 16}, {16, 3, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}, false);
  convolution("odd_channels", {2, 5, 7, 6}, {7, 5, 3, 3}, {.stride = {2, 1}, .pad_begin = {1, 1}}, true);
  convolution("wide", {2, 32, 8, 8}, {48, 32, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}, false);
  convolution("wide_bias", {2, 32, 8, 8}, {48, 32, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}, true);
  convolution("one_by_one", {2, 32, 8, 8}, {64, 32, 1, 1}, {.stride = {2, 2}}, false);
  convolution("groups", {2, 12, 8, 8}, {18, 4, 3, 3}, {.groups = 3}, true);
  convolution("depthwise", {2, 12, 8, 8}, {12, 1, 3, 3}, {.groups = 12}, true);
  convolution("dilated", {2, 16, 9, 9}, {16, 16, 3, 3}, {.dilation = {2, 2}}, false);
  convolution("few_pixels", {3, 128, 2, 2}, {128, 128, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}},
              false);
  return all;
}

struct Outcome {
  Tensor y;
  std::vector<std::vector<float>> gradients;
};

class Bf16Op : public testing::TestWithParam<Case> {
 protected:
  // The op on the same numbers, in float32 or with bf16 inputs.
  Outcome run(DType dtype, Device device) {
    const Case& c = GetParam();
    std::vector<Tensor> leaves;
    std::vector<Tensor> inputs;
    for (std::size_t i = 0; i < c.shapes.size(); ++i) {
      const std::vector<float> values = rounded(random_values(c.shapes[i].numel(), 10 + i));
      leaves.push_back(Tensor::from_values(c.shapes[i], values, device));
      leaves.back().set_requires_grad(true);
      const bool master = i < c.masters.size() && c.masters[i];
      inputs.push_back(master ? leaves.back() : cast(leaves.back(), dtype));
    }
    Outcome outcome{.y = c.op(inputs)};
    EXPECT_EQ(outcome.y.dtype(), dtype);
    const std::vector<float> cotangent = rounded(random_values(outcome.y.numel(), 99));
    Tape::backward(outcome.y, cast(Tensor::from_values(outcome.y.shape(), cotangent, device), dtype));
    for (const Tensor& leaf : leaves) {
      EXPECT_EQ(leaf.grad().dtype(), DType::f32);
      outcome.gradients.push_back(leaf.grad().values());
    }
    return outcome;
  }
};

TEST_P(Bf16Op, IsTheOpInFloat32Rounded) {
  for (const Device device : available_devices()) {
    SCOPED_TRACE(device.str());
    const Outcome wide = run(DType::f32, device);
    const Outcome narrow = run(DType::bf16, device);
    ASSERT_EQ(narrow.y.shape(), wide.y.shape());
    if (GetParam().elementwise) {
      EXPECT_TRUE(identical(as_floats(narrow.y), rounded(wide.y.values())));
    }
    EXPECT_TRUE(near(as_floats(narrow.y), wide.y.values(), rounding));
    for (std::size_t i = 0; i < wide.gradients.size(); ++i)
      EXPECT_TRUE(near(narrow.gradients[i], wide.gradients[i], GetParam().gradient_tolerance))
          << "gradient " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, Bf16Op, testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

TEST(Precision, InPlaceUpdatesRound) {
  const Tensor a = cast(Tensor::from_values({2}, {1, 256}), DType::bf16);
  add_in_place(a, cast(Tensor::from_values({2}, {0.5F, 1}), DType::bf16));
  EXPECT_EQ(as_floats(a), (std::vector<float>{1.5F, 256}));  // 257 lies halfway, and 256 is even
  multiply_in_place(a, Tensor::full({}, 2));
  EXPECT_EQ(as_floats(a), (std::vector<float>{3, 512}));
  EXPECT_THROW(add_in_place(a, Tensor::zeros({2})), DTypeError);
}

TEST(Precision, NanWinsInMaxPooling) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = cast(Tensor::from_values({1, 1, 2, 2}, {1, nan, 3, 4}), DType::bf16);
  EXPECT_TRUE(std::isnan(as_floats(max_pool2d(x, {}))[0]));
}

}  // namespace
}  // namespace qtrain
