// What is particular to pact and not in its golden cases.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "quant/registry.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::normal_values;

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

struct Result {
  Values y;
  Values grad_x;
  Values grad_clip;
};

Result run(Quantizer& quantizer, const Tensor& values, const Values& g) {
  Tensor x = values.clone();
  x.set_requires_grad(true);
  for (const Tensor& p : quantizer.parameters()) p.set_grad({});
  const Tensor y = quantizer.forward(x);
  Tape::backward(y, Tensor::from_values(x.shape(), g));
  return {y.values(), x.grad().values(), quantizer.parameters()[0].grad().values()};
}

std::shared_ptr<Quantizer> activation(int bits, const Texts& options = {},
                                      const Shape& shape = {1, 1, 1, 1}) {
  return make_quantizer("pact", Role::activation, bits, LayerKind::convolution, options, shape);
}

Tensor row(const Values& values) {
  return Tensor::from_values({1, static_cast<std::int64_t>(values.size())}, values);
}

TEST(Pact, BordersAndSpecialValues) {
  const float inf = std::numeric_limits<float>::infinity();
  const Values x = {-inf, -1, -0.0F, 0, 1, 1.99F, 2, 3, 1e30F, inf};
  const Result result = run(*activation(2, {{"boundary", "2"}}), row(x), {1, 1, 1, 1, 1, 1, 10, 100, 1, 1});
  EXPECT_EQ(result.y, (Values{0, 0, 0, 0, 4.0F / 3, 2, 2, 2, 2, 2}));  // 1.5 rounds to even: 2 of 3
  EXPECT_EQ(result.grad_x, (Values{0, 0, 1, 1, 1, 1, 0, 0, 0, 0}));  // zero passes; the clip's own goes to it
  EXPECT_EQ(result.grad_clip, (Values{112}));
}

// y = clip(x, 0, a) + rounding error, the error a constant.
TEST(Pact, GradientsAreThoseOfTheClipping) {
  const Values x = normal_values(500, 2, 1);
  const Values g = normal_values(500, 1, 2);
  const Result result = run(*activation(3, {{"boundary", "1.7"}}), row(x), g);
  const double step = 1e-6;
  double expected = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto v = static_cast<double>(x[i]);
    const auto clipped = [](double value, double a) { return std::clamp(value, 0.0, a); };
    const auto weight = static_cast<double>(g[i]);
    EXPECT_NEAR(static_cast<double>(result.grad_x[i]),
                weight * (clipped(v + step, 1.7) - clipped(v - step, 1.7)) / (2 * step), 1e-4);
    expected += weight * (clipped(v, 1.7 + step) - clipped(v, 1.7 - step)) / (2 * step);
  }
  EXPECT_NEAR(static_cast<double>(result.grad_clip[0]), expected, 1e-3);
}

// The reference's outputs are all equal to a clip that isn't positive.
TEST(Pact, AClipThatIsNotPositiveCountsAsTinyAndCanGrowAgain) {
  const auto quantizer = activation(4);
  for (const float clip : {0.0F, -3.0F, 1e-30F, -std::numeric_limits<float>::infinity()}) {
    quantizer->parameters()[0].copy_from(Tensor::full({1}, clip));
    const Result result = run(*quantizer, row({-1, 0, 0.5F, 2}), {1, 1, 1, 1});
    EXPECT_EQ(result.y, (Values{0, 0, 1e-8F, 1e-8F})) << clip;
    EXPECT_EQ(result.grad_clip, (Values{2})) << clip;
    EXPECT_EQ(result.grad_x, (Values{0, 1, 0, 0})) << clip;
  }
}

TEST(Pact, AClipThatIsNoNumberShows) {
  const auto quantizer = activation(4);
  quantizer->parameters()[0].copy_from(Tensor::full({1}, std::nanf("")));
  for (const float v : quantizer->forward(row({1, 2})).values()) EXPECT_TRUE(std::isnan(v));
  quantizer->parameters()[0].copy_from(Tensor::full({1}, std::numeric_limits<float>::infinity()));
  for (const float v : quantizer->forward(row({1, 1e30F})).values()) EXPECT_TRUE(std::isfinite(v));
}

TEST(Pact, EachGroupOfChannelsHasItsClip) {
  const auto quantizer = activation(1, {{"groups", "2"}}, {1, 4, 1, 1});
  const Tensor clip = quantizer->parameters()[0];
  EXPECT_EQ(clip.shape(), (Shape{1, 2, 1, 1}));
  clip.copy_from(Tensor::from_values({1, 2, 1, 1}, {1, 4}));
  const Result result = run(*quantizer, Tensor::full({1, 4, 1, 1}, 3), {1, 2, 3, 4});
  EXPECT_EQ(result.y, (Values{1, 1, 4, 4}));
  EXPECT_EQ(result.grad_x, (Values{0, 0, 3, 4}));
  EXPECT_EQ(result.grad_clip, (Values{3, 0}));
}

TEST(Pact, TheClipFollowsTheMaximumWhileWarmingUp) {
  const auto quantizer = activation(2, {{"stable", "2"}, {"correlate", "0.5"}});
  const auto clip = [&] { return quantizer->parameters()[0].item(); };
  quantizer->forward(row({1, -8}));
  EXPECT_EQ(clip(), 4);  // t = 1: 8 / 2, whatever it was
  quantizer->evaluate();
  EXPECT_EQ(quantizer->forward(row({100, 0.3F})).values(), (Values{100, 0.3F}));
  EXPECT_EQ(clip(), 4);  // evaluation changes nothing
  quantizer->train(true);
  quantizer->forward(row({1, -4}));
  EXPECT_EQ(clip(), 3);  // (2 + 4) / 2
  EXPECT_EQ(quantizer->forward(row({100, 1})).values(), (Values{3, 1}));
  EXPECT_EQ(clip(), 3);
}

TEST(Pact, ThirtyTwoBitsAreFloat) {
  EXPECT_EQ(activation(32)->forward(row({-1, 0.3F, 9})).values(), (Values{-1, 0.3F, 9}));
}

TEST(Pact, ItsWeightsAreDorefas) {
  const Tensor w = Tensor::from_values({8, 3, 3, 3}, normal_values(216, 0.3, 3));
  for (const Texts& options : {Texts{}, Texts{{"boundary", "0.75"}, {"adaptive", "var-mean"}}}) {
    const auto make = [&](const char* name) {
      return make_quantizer(name, Role::weight, 3, LayerKind::convolution, options, w.shape());
    };
    EXPECT_EQ(make("pact")->forward(w).values(), make("dorefa")->forward(w).values());
  }
}

TEST(Pact, RefusesAnImpossibleStart) {
  for (const char* boundary : {"0", "-1", "1e7"})
    EXPECT_THROW(activation(4, {{"boundary", boundary}}), ValueError) << boundary;
  EXPECT_THROW(activation(2, {{"levels", "5"}}), ValueError);
}

}  // namespace
}  // namespace qtrain::quant
