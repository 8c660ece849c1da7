#include "engine/kernels/math.h"

#include <gtest/gtest.h>

#include "engine/core/rng.h"

namespace qtrain {
namespace {

// The largest error in units in the last place of the float32 nearest to the true value, over every
// `stride`-th float of [low, high]; results below `smallest` are left out, as denormal numbers may be flushed
// to zero.
template <class Approximation, class Truth>
double largest_ulp(float low, float high, std::uint32_t stride, Approximation f, Truth truth) {
  double worst = 0;
  const auto sweep = [&](float from, float to, float sign) {  // 0 <= from <= to
    for (std::uint32_t bits = std::bit_cast<std::uint32_t>(from); bits <= std::bit_cast<std::uint32_t>(to);
         bits += stride) {
      const float x = sign * std::bit_cast<float>(bits);
      const double want = truth(static_cast<double>(x));
      if (std::abs(want) < 0x1p-125) continue;
      const double ulp = std::ldexp(1.0, std::ilogb(want) - 23);
      worst = std::max(worst, std::abs(static_cast<double>(f(x)) - want) / ulp);
    }
  };
  if (high > 0) sweep(std::max(low, 0x1p-125F), high, 1);
  if (low < 0) sweep(0x1p-125F, -low, -1);
  return worst;
}

constexpr std::uint32_t stride = 1009;

TEST(Math, ExpOfNonpositive) {
  EXPECT_LT(largest_ulp(-87, 0, stride, exp_nonpositive, [](double x) { return std::exp(x); }), 2);
  EXPECT_EQ(exp_nonpositive(0), 1.0F);
  EXPECT_EQ(exp_nonpositive(-200), 0.0F);
  EXPECT_EQ(exp_nonpositive(-INFINITY), 0.0F);
  for (float x = -87; x > -110; x -= 0.01F)
    EXPECT_NEAR(static_cast<double>(exp_nonpositive(x)), std::exp(static_cast<double>(x)), 0x1p-126);
}

TEST(Math, Tanh) {
  EXPECT_LT(largest_ulp(-20, 20, stride, tanh_of, [](double x) { return std::tanh(x); }), 2.5);
  EXPECT_EQ(tanh_of(9.02F), 1.0F);
  EXPECT_EQ(tanh_of(-9.02F), -1.0F);
  EXPECT_EQ(tanh_of(INFINITY), 1.0F);
  EXPECT_EQ(tanh_of(-INFINITY), -1.0F);
  EXPECT_TRUE(std::isnan(tanh_of(NAN)));
  EXPECT_EQ(tanh_of(0.0F), 0.0F);
  for (int k = 0; k < 26; ++k) {  // where the power of two in the formula changes: 2x = (k + 1/2) ln 2
    const float at = (static_cast<float>(k) + 0.5F) * 0.34657359F;
    float before = -1;
    for (float x = at * 0.9999F; x < at * 1.0001F; x = std::nextafterf(x, 20)) {
      const float y = tanh_of(x);
      ASSERT_GE(y, before - 0x1p-23F * y) << x;
      before = y;
    }
  }
}

TEST(Math, Sigmoid) {
  EXPECT_LT(largest_ulp(-87, 40, stride, sigmoid_of, [](double x) { return 1 / (1 + std::exp(-x)); }), 3);
  EXPECT_EQ(sigmoid_of(0), 0.5F);
  EXPECT_EQ(sigmoid_of(INFINITY), 1.0F);
  EXPECT_EQ(sigmoid_of(-INFINITY), 0.0F);
  EXPECT_TRUE(std::isnan(sigmoid_of(NAN)));
}

TEST(Math, RoundingNamesItsTies) {
  const float largest_below_half = 0.49999997F;
  for (const auto& [x, to_even, away] : {std::tuple{0.5F, 0.0F, 1.0F},
                                         {1.5F, 2.0F, 2.0F},
                                         {2.5F, 2.0F, 3.0F},
                                         {-0.5F, -0.0F, -1.0F},
                                         {-2.5F, -2.0F, -3.0F},
                                         {largest_below_half, 0.0F, 0.0F},
                                         {-largest_below_half, 0.0F, 0.0F},
                                         {8388607.5F, 8388608.0F, 8388608.0F},
                                         {8388609.0F, 8388609.0F, 8388609.0F},
                                         {1e30F, 1e30F, 1e30F}}) {
    EXPECT_EQ(round_half_to_even(x), to_even) << x;
    EXPECT_EQ(round_half_away(x), away) << x;
  }
  EXPECT_TRUE(std::isnan(round_half_away(NAN)));
  EXPECT_EQ(round_half_away(INFINITY), INFINITY);
}

TEST(Math, RoundHalfAwayEqualsTheLibrary) {
  for (std::uint32_t bits = 0; bits < 0x4c000000; bits += 517)
    for (const float sign : {1.0F, -1.0F}) {
      const float x = sign * std::bit_cast<float>(bits);
      ASSERT_EQ(round_half_away(x), std::round(x)) << x;
    }
}

TEST(Math, ClipAndSign) {
  EXPECT_EQ(clip(2, 0, 1), 1.0F);
  EXPECT_EQ(clip(-2, 0, 1), 0.0F);
  EXPECT_EQ(clip(0.5F, 0, 1), 0.5F);
  EXPECT_TRUE(std::isnan(clip(NAN, 0, 1)));
  EXPECT_EQ(sign_of(-3), -1.0F);
  EXPECT_EQ(sign_of(0), 0.0F);
  EXPECT_EQ(sign_of(3), 1.0F);
}

TEST(Divisor, EqualsTheDivisionForEveryLevelCount) {
  RandomStream random(1, RandomPurpose::user);
  for (int bits = 1; bits <= 16; ++bits) {
    Divisor divisor;
    divisor.set(static_cast<float>((1 << bits) - 1));
    for (int i = 0; i <= 1 << 16; ++i)
      ASSERT_EQ(divisor.divide(static_cast<float>(i)), static_cast<float>(i) / divisor.d) << i;
    for (int i = 0; i < 50000; ++i) {
      const auto x = static_cast<float>(random.uniform(-70000, 70000));
      ASSERT_EQ(divisor.divide(x), x / divisor.d) << x << " / " << divisor.d;
    }
  }
}

TEST(Divisor, EqualsTheDivisionForRandomPairs) {
  std::uint32_t wrong = 0;
  float wrong_x = 0;
  float wrong_d = 0;
  std::array<std::uint32_t, 4> counter{};
  const auto number = [](std::uint32_t bits) {  // any significand and sign, exponents -40 .. 40
    const std::uint32_t exponent = 127 - 40 + (bits >> 23 & 0xff) % 81;
    return std::bit_cast<float>((bits & 0x807fffff) | exponent << 23);
  };
  constexpr std::uint32_t pairs = 10'000'000;
  for (std::uint32_t i = 0; i < pairs / 2; ++i) {
    counter[0] = i;
    const auto bits = philox4x32(counter, {2, 3});
    for (const std::size_t k : {std::size_t{0}, std::size_t{2}}) {
      Divisor divisor;
      divisor.set(number(bits[k]));
      const float x = number(bits[k + 1]);
      if (divisor.divide(x) == x / divisor.d) continue;
      ++wrong;
      wrong_x = x;
      wrong_d = divisor.d;
    }
  }
  EXPECT_EQ(wrong, 0U) << "for example " << wrong_x << " / " << wrong_d;
}

}  // namespace
}  // namespace qtrain
