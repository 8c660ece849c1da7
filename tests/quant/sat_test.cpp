// What is particular to sat and not in its golden cases: the surrogates behind its straight-through
// gradients, by finite differences in double, and its values at the borders.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "quant/registry.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::normal_values;

using Values = std::vector<float>;

struct Result {
  Values y;
  Values grad_x;
  Values grad_alpha;
};

Result run(Role role, int bits, const std::map<std::string, std::string>& options, const Values& values,
           const Values& g, LayerKind layer = LayerKind::convolution) {
  const auto quantizer = make_quantizer("sat", role, bits, layer, options);
  const Shape shape{static_cast<std::int64_t>(values.size()), 1};
  Tensor x = Tensor::from_values(shape, values);
  x.set_requires_grad(true);
  const Tensor y = quantizer->forward(x);
  Tape::backward(y, Tensor::from_values(shape, g));
  Result result{y.values(), x.grad().values(), {}};
  for (const Tensor& p : quantizer->parameters()) result.grad_alpha = p.grad().values();
  return result;
}

// --- activations: y = clip(x) + alpha * (q - n), with the rounding error q - n a constant
// ------------------------

class Activation : public testing::TestWithParam<bool> {};

TEST_P(Activation, GradientsAreThoseOfTheSurrogate) {
  const bool both_sides = GetParam();
  const double alpha = 2.5;
  const Values x = normal_values(400, 2.5, 1);
  const Values g = normal_values(400, 1, 2);
  const Result result =
      run(Role::activation, 3, {{"alpha", "2.5"}, {"double_side", both_sides ? "true" : "false"}}, x, g);

  const auto clipped = [&](double v, double a) { return std::clamp(v, both_sides ? -a : 0.0, a); };
  const auto rounding_error = [&](double v) {
    const double n = clipped(v, alpha) / alpha;
    const double z = both_sides ? (n + 1) / 2 : n;
    const double q = std::nearbyint(7 * z) / 7;
    return (both_sides ? 2 * q - 1 : q) - n;
  };
  const double step = 1e-6;
  double alpha_gradient = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto value = static_cast<double>(x[i]);
    const auto weight = static_cast<double>(g[i]);
    EXPECT_NEAR(static_cast<double>(result.y[i]), clipped(value, alpha) + alpha * rounding_error(value),
                1e-5);
    const double slope = (clipped(value + step, alpha) - clipped(value - step, alpha)) / (2 * step);
    EXPECT_NEAR(static_cast<double>(result.grad_x[i]), slope * weight, 1e-4) << value;
    const double error = rounding_error(value);
    const auto surrogate = [&](double a) { return clipped(value, a) + a * error; };
    alpha_gradient += weight * (surrogate(alpha + step) - surrogate(alpha - step)) / (2 * step);
  }
  EXPECT_NEAR(static_cast<double>(result.grad_alpha[0]), alpha_gradient, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Sides, Activation, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "both" : "one"; });

TEST(SatActivation, BordersAndSpecialValues) {
  const float inf = std::numeric_limits<float>::infinity();
  const Values x = {-inf, -1, -0.0F, 0, 4, 8, 9, 1e30F, inf};
  const Values g(x.size(), 1);
  const Result one = run(Role::activation, 2, {}, x, g);
  EXPECT_EQ(one.y, (Values{0, 0, 0, 0, 5.3333335F, 8, 8, 8, 8}));  // 4 / 8 * 3 = 1.5 rounds to even: 2
  EXPECT_EQ(one.grad_x, (Values{0, 0, 0, 0, 1, 0, 0, 0, 0}));      // 0 at both borders
  const Result both = run(Role::activation, 1, {{"double_side", "true"}}, x, g);
  EXPECT_EQ(both.y, (Values{-8, -8, -8, -8, 8, 8, 8, 8, 8}));  // at 0: half to even goes down
}

TEST(SatActivation, StartsAtTheLayersLevelUnlessTold) {
  const auto alpha = [](LayerKind layer, const std::map<std::string, std::string>& options) {
    return make_quantizer("sat", Role::activation, 4, layer, options)->parameters()[0].item();
  };
  EXPECT_EQ(alpha(LayerKind::convolution, {}), 8);
  EXPECT_EQ(alpha(LayerKind::linear, {}), 10);
  EXPECT_EQ(alpha(LayerKind::linear, {{"alpha", "3"}}), 3);
}

TEST(SatActivation, AnAlphaThatIsNotFiniteShows) {
  const auto quantizer = make_quantizer("sat", Role::activation, 4, LayerKind::convolution);
  quantizer->parameters()[0].copy_from(Tensor::full({1}, std::numeric_limits<float>::quiet_NaN()));
  EXPECT_TRUE(std::isnan(quantizer->forward(Tensor::full({2}, 1)).values()[0]));
  quantizer->parameters()[0].copy_from(Tensor::zeros({1}));  // everything is clipped, nothing is divided by 0
  EXPECT_LE(quantizer->forward(Tensor::full({2}, 1)).values()[0], 1e-6F);
}

// --- weights: the rounding passes gradients, so they are those of u = tanh(w) / max|tanh(w)|
// ---------------------

TEST(SatWeight, RoundingPassesGradients) {
  const Values w = normal_values(300, 0.5, 3);
  const Values g = normal_values(300, 1, 4);
  const Values smooth = run(Role::weight, 32, {}, w, g).grad_x;
  for (const int bits : {1, 2, 4, 8, 31})
    for (const char* scheme : {"original", "modified", "centered"})
      EXPECT_EQ(run(Role::weight, bits, {{"scheme", scheme}}, w, g).grad_x, smooth) << bits << " " << scheme;
}

TEST(SatWeight, GradientsAreThoseOfTanhOverItsMaximum) {
  const Values w = normal_values(50, 0.7, 5);
  const Values g = normal_values(50, 1, 6);
  const Values gradient = run(Role::weight, 4, {}, w, g).grad_x;
  const auto objective = [&](std::size_t moved, double by) {
    std::vector<double> t;
    for (std::size_t i = 0; i < w.size(); ++i)
      t.push_back(std::tanh(static_cast<double>(w[i]) + (i == moved ? by : 0)));
    const double m = std::abs(
        *std::max_element(t.begin(), t.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }));
    double sum = 0;
    for (std::size_t i = 0; i < t.size(); ++i) sum += static_cast<double>(g[i]) * t[i] / m;
    return sum;
  };
  for (std::size_t i = 0; i < w.size(); ++i)
    EXPECT_NEAR(static_cast<double>(gradient[i]), (objective(i, 1e-6) - objective(i, -1e-6)) / 2e-6, 1e-4)
        << i;
}

TEST(SatWeight, TiesShareTheMaximumsGradient) {
  const Values gradient = run(Role::weight, 4, {}, {0.7F, -0.7F, 0.1F}, {1, 0, 0}).grad_x;
  const double t = std::tanh(0.7);
  const double slope = 1 - t * t;
  EXPECT_NEAR(static_cast<double>(gradient[0]), (1 / t - 0.5 / t) * slope, 1e-5);
  EXPECT_NEAR(static_cast<double>(gradient[1]), 0.5 / t * slope, 1e-5);  // -sign(t_1) * t_0 / (2 t^2)
  EXPECT_EQ(gradient[2], 0);
}

TEST(SatWeight, ZeroGoesWhereTheSchemeSays) {
  const Values w = {0, 1, -1};
  const Values g(3, 1);
  const auto at_zero = [&](const char* scheme) {
    return run(Role::weight, 3, {{"scheme", scheme}}, w, g).y[0];
  };
  EXPECT_EQ(at_zero("modified"), 0);
  EXPECT_FLOAT_EQ(at_zero("original"), 1.0F / 7);
  EXPECT_FLOAT_EQ(at_zero("centered"), 1.0F / 8);
}

TEST(SatWeight, InfinitiesCountAsSaturated) {
  const float inf = std::numeric_limits<float>::infinity();
  const Result result = run(Role::weight, 2, {{"scheme", "original"}}, {inf, -inf, 20, 0.1F}, {1, 1, 1, 1});
  EXPECT_EQ((Values{result.y.begin(), result.y.begin() + 3}), (Values{1, -1, 1}));
  for (const float v : result.grad_x) EXPECT_TRUE(std::isfinite(v));
}

TEST(SatWeight, RescalesByFanOutNotFanIn) {
  const auto quantizer =
      make_quantizer("sat", Role::weight, 4, LayerKind::convolution, {{"rescale", "constant"}});
  const Values values = normal_values(600, 0.3, 7);
  const Values y = quantizer->forward(Tensor::from_values({8, 3, 5, 5}, values)).values();
  double mean = 0;
  double square = 0;
  for (const float v : y) mean += static_cast<double>(v) / static_cast<double>(y.size());
  for (const float v : y) square += std::pow(static_cast<double>(v) - mean, 2);
  EXPECT_NEAR(std::sqrt(square / static_cast<double>(y.size() - 1)), 1 / std::sqrt(8.0 * 5 * 5), 1e-6);
}

TEST(SatWeight, EvaluationOfALinearLayerMovesTheScaleToTheBias) {
  const auto quantizer = make_quantizer("sat", Role::weight, 4, LayerKind::linear);
  const Tensor w = Tensor::from_values({4, 6}, normal_values(24, 0.3, 8));
  const Tensor bias = Tensor::full({4}, 2);
  const Values trained = quantizer->forward(w).values();
  EXPECT_EQ(quantizer->layer_bias(bias).values(), bias.values());
  quantizer->evaluate();
  const Values evaluated = quantizer->forward(w).values();
  const float divided = quantizer->layer_bias(bias).values()[0];
  const auto largest =
      static_cast<std::size_t>(std::max_element(evaluated.begin(), evaluated.end()) - evaluated.begin());
  EXPECT_NEAR(trained[largest] / evaluated[largest], 2 / divided, 1e-5);  // both are s
  EXPECT_FALSE(quantizer->layer_bias(Tensor()).defined());
}

}  // namespace
}  // namespace qtrain::quant
