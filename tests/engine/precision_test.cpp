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
#include "engine/ops/cast.h"
#include "engine/ops/loss.h"
#include "engine/ops/pooling.h"
#include "engine/ops/reduce.h"
#include "tests/engine/op_cases.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::near;
using testing_support::op_cases;
using testing_support::OpCase;
using testing_support::OpOutcome;
using testing_support::rounded;
using testing_support::run_op;

constexpr double rounding = 1.0 / 256;  // twice the largest relative error of one rounding to 8 bits

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

class Bf16Op : public testing::TestWithParam<OpCase> {};

TEST_P(Bf16Op, IsTheOpInFloat32Rounded) {
  for (const Device device : available_devices()) {
    SCOPED_TRACE(device.str());
    const OpOutcome wide = run_op(GetParam(), DType::f32, device);
    const OpOutcome narrow = run_op(GetParam(), DType::bf16, device);
    ASSERT_EQ(narrow.shape, wide.shape);
    if (GetParam().elementwise) {
      EXPECT_TRUE(identical(narrow.y, rounded(wide.y)));
    }
    EXPECT_TRUE(near(narrow.y, wide.y, rounding));
    ASSERT_EQ(narrow.gradients.size(), wide.gradients.size());
    for (std::size_t i = 0; i < wide.gradients.size(); ++i)
      EXPECT_TRUE(near(narrow.gradients[i], wide.gradients[i], GetParam().bf16_gradient_tolerance))
          << "gradient " << i;
  }
}

std::vector<OpCase> cases() {
  std::vector<OpCase> all = op_cases();
  std::erase_if(all, [](const OpCase& c) { return !c.takes_bf16; });
  return all;
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
