// What the golden cases of afp don't show: the integer rounding against a search over the levels in double,
// the exact exponent, the ends of float32's range, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "quant/quantizers/afp.h"
#include "quant/registry.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::expect_refused;

using Values = std::vector<float>;
constexpr float infinity = std::numeric_limits<float>::infinity();

std::shared_ptr<Quantizer> make(int bits) {
  return make_quantizer("afp", Role::weight, bits, LayerKind::linear);
}

Values quantized(int bits, const Values& w) {
  return make(bits)->forward(Tensor::from_values({1, static_cast<std::int64_t>(w.size())}, w)).values();
}

// The first of the levels with the least distance, as the reference searches: 0 stands at the end.
float searched(const Values& levels, float w) {
  double best = std::numeric_limits<double>::infinity();
  float nearest = 0;
  for (const float level : levels) {
    const double distance = std::abs(std::abs(static_cast<double>(w)) - static_cast<double>(level));
    if (distance < best) {
      best = distance;
      nearest = level;
    }
  }
  return w < 0 ? -nearest : nearest;
}

// Levels, the middles between them, the floats beside both, and random values, all at most `largest`.
Values difficult_weights(const Values& levels, float largest) {
  Values at = levels;
  std::sort(at.begin(), at.end());
  for (std::size_t i = at.size() - 1; i > 0; --i) at.push_back(at[i - 1] + (at[i] - at[i - 1]) / 2);
  Values weights;
  for (const float v : at)
    for (const float w : {std::nextafter(v, 0.0F), v, std::nextafter(v, infinity)})
      if (w <= largest) weights.insert(weights.end(), {w, -w});
  RandomStream random(5, RandomPurpose::user);
  for (int i = 0; i < 2000; ++i) {
    const double spread = std::exp2(-34 * random.uniform());
    weights.push_back(static_cast<float>(static_cast<double>(largest) * spread * (2 * random.uniform() - 1)));
  }
  weights.push_back(largest);
  return weights;
}

TEST(Afp, IsTheSearchOverTheLevels) {
  for (int bits = afp_least_bits; bits <= afp_most_bits; ++bits)
    for (const float largest :
         {1.0F, 0.3F, 0.99999994F, 1.25F, 1.5F, 1.75F, 1.7500001F, 1.9999999F, 3e-20F, 7e20F}) {
      const Values levels = afp_levels(bits, largest);
      EXPECT_EQ(levels.size(), std::size_t{1} << (bits - 1));
      const Values w = difficult_weights(levels, largest);
      const Values y = quantized(bits, w);
      for (std::size_t i = 0; i < w.size(); ++i)
        ASSERT_EQ(y[i], searched(levels, w[i])) << w[i] << " at " << bits << " bits, largest " << largest;
    }
}

TEST(Afp, NearestLevelIsTheSameSearch) {
  for (const Values& positive :
       {Values{0.125F, 0.1875F, 0.25F, 0.375F, 0.5F, 0.75F}, Values{0.3F, 0.5F, 2.0F}, Values{1}}) {
    Values levels = positive;
    levels.push_back(0);
    for (const float w : difficult_weights(levels, 3))
      EXPECT_EQ(nearest_level(positive, w), searched(levels, w)) << w;
  }
  EXPECT_EQ(nearest_level(Values{0.5F}, infinity), 0.5F);
  EXPECT_EQ(nearest_level(Values{0.5F}, -infinity), -0.5F);
  EXPECT_TRUE(std::isnan(nearest_level(Values{0.5F}, std::numeric_limits<float>::quiet_NaN())));
}

// The largest weight has a level at or above it; one unit in the last place decides which. The smallest level
// moves along.
TEST(Afp, TheExponentIsExactAtTheBorder) {
  const auto r_max = [](int bits) { return bits == 3 ? 1.0F : (bits == 4 ? 1.5F : 1.75F); };
  for (int bits = afp_least_bits; bits <= afp_most_bits; ++bits)
    for (int k = -80; k <= 120; ++k) {
      const float border = std::ldexp(r_max(bits), k);
      const Values at = afp_levels(bits, border);
      const Values beyond = afp_levels(bits, std::nextafter(border, infinity));
      ASSERT_EQ(*std::max_element(at.begin(), at.end()), border) << bits << " bits, 2^" << k;
      ASSERT_EQ(*std::max_element(beyond.begin(), beyond.end()), 2 * border) << bits << " bits, 2^" << k;
      ASSERT_EQ(beyond[0], 2 * at[0]);
      // A quarter of the smallest level is 0, half of it is not; with the next exponent it is.
      ASSERT_EQ(quantized(bits, {border, at[0] / 2, at[0] / 4})[1], at[0]);
      ASSERT_EQ(quantized(bits, {std::nextafter(border, infinity), at[0] / 2, at[0] / 4})[1], 0);
    }
  EXPECT_EQ(afp_levels(5, 1.75F)[14], 1.75F);
  EXPECT_EQ(afp_levels(5, std::nextafter(1.75F, 2.0F))[14], 3.5F);
}

TEST(Afp, ThreeBitsHaveNoMantissa) {
  EXPECT_EQ(afp_levels(3, 1), (Values{0.25F, 0.5F, 1, 0}));
  EXPECT_EQ(quantized(3, {1, -0.75F, 0.76F, 0.375F, 0.125F, -0.12F}),
            (Values{1, -0.5F, 1, 0.25F, 0.125F * 2, 0}));
}

// Where the levels leave the range of normal floats, they stay those of larger weights times a power of two.
TEST(Afp, ScalesByPowersOfTwo) {
  for (int bits = afp_least_bits; bits <= afp_most_bits; ++bits) {
    const Values w = difficult_weights(afp_levels(bits, 1.6F), 1.6F);
    const Values y = quantized(bits, w);
    for (const int k : {-60, -88, -89, -90, -91, -92, 100, 126}) {
      Values moved = w;
      for (float& v : moved) v = std::ldexp(v, k);
      const Values result = quantized(bits, moved);
      for (std::size_t i = 0; i < w.size(); ++i)
        if (std::abs(moved[i]) >= std::numeric_limits<float>::min()) {
          ASSERT_EQ(result[i], std::ldexp(y[i], k)) << w[i] << " * 2^" << k << ", " << bits << " bits";
        }
    }
  }
}

TEST(Afp, EndsOfTheRange) {
  const float most = std::numeric_limits<float>::max();
  EXPECT_EQ(quantized(3, {most, -most}), (Values{0x1p127F, -0x1p127F}));
  EXPECT_EQ(quantized(4, {most, -most}), (Values{0x1.8p127F, -0x1.8p127F}));
  EXPECT_EQ(quantized(8, {most, -most}), (Values{0x1.cp127F, -0x1.cp127F}));
  const float least = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(quantized(3, {least, 0, -least}), (Values{least, 0, -least}));
  EXPECT_EQ(quantized(8, {1e-40F, 0, -1e-40F}).size(), 3U);
  EXPECT_EQ(quantized(5, {}), Values{});
}

TEST(Afp, AllZeroStaysAndTheNotFiniteShows) {
  const Values zeros = quantized(4, {0, -0.0F, 0});
  EXPECT_EQ(zeros, (Values{0, 0, 0}));
  EXPECT_TRUE(std::signbit(zeros[1]));
  for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()})
    for (const float y : quantized(4, {0.5F, bad, 0})) EXPECT_TRUE(std::isnan(y)) << bad;
}

TEST(Afp, TheGradientPassesStraightThrough) {
  Tensor w = Tensor::from_values({1, 5}, {0.7F, -3, 0, 1e-9F, 2});
  w.set_requires_grad(true);
  const Values g = {1, -2, 3, 4, 5};
  Tape::backward(make(4)->forward(w), Tensor::from_values({1, 5}, g));
  EXPECT_EQ(w.grad().values(), g);
}

TEST(Afp, RefusesBitsThatItHasNoFormatFor) {
  for (const int bits : {1, 2}) expect_refused([&] { make(bits); }, "too few bits");
  for (const int bits : {9, 16, 31}) expect_refused([&] { make(bits); }, "below 2^-31 of the largest weight");
  const auto quantizer = make(5);
  expect_refused([&] { quantizer->set_bits(2); }, "3 to 8");
  expect_refused([&] { quantizer->set_bits(9); }, "3 to 8");
  EXPECT_EQ(quantizer->bits(), 5);
  expect_refused([&] { afp_levels(2, 1); }, "too few bits");
  for (const float largest : {0.0F, -1.0F, infinity}) EXPECT_THROW(afp_levels(4, largest), ValueError);
  EXPECT_THROW(make_quantizer("afp", Role::activation, 4, LayerKind::linear), ValueError);
  EXPECT_EQ(quantized(32, {0.3F, -0.1F}), (Values{0.3F, -0.1F}));
}

}  // namespace
}  // namespace qtrain::quant
