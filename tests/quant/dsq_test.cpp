// What is particular to dsq and not in its golden cases: what its gradients must add up to whatever the
// tensor, the options, and the reference's mistakes that it doesn't share.
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

std::shared_ptr<Quantizer> make(int bits, const Texts& options = {}, Role role = Role::activation) {
  return make_quantizer("dsq", role, bits, LayerKind::convolution, options);
}

float value(Quantizer& quantizer, const std::string& name) {
  for (const NamedTensor& t : quantizer.state_dict())
    if (t.name == name) return t.tensor.item();
  ADD_FAILURE() << "no " << name;
  return 0;
}

void set(Quantizer& quantizer, const std::string& name, float to) {
  quantizer.load_state_dict({{name, Tensor::full({1}, to)}}, false);
}

struct Result {
  Values y;
  Values grad_x;
  std::map<std::string, float> grad;
};

Result run(Quantizer& quantizer, const Values& values, const Values& g) {
  const Shape shape{static_cast<std::int64_t>(values.size())};
  Tensor x = Tensor::from_values(shape, values);
  x.set_requires_grad(true);
  for (const Tensor& p : quantizer.parameters()) p.set_grad({});
  const Tensor y = quantizer.forward(x);
  Tape::backward(y, Tensor::from_values(shape, g));
  Result result{y.values(), x.grad().values(), {}};
  for (const NamedTensor& p : quantizer.named_parameters()) result.grad[p.name] = p.tensor.grad().item();
  return result;
}

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// y(x + t) = y(x) + t and y(c x) = c y(x), so the gradients add up to those of x itself. Several blocks, with
// extremes in more than one of them.
TEST(Dsq, GradientsFollowAShiftAndAScaleOfTheTensor) {
  Values x = normal_values(30000, 1, 1);
  for (const std::size_t i : {100U, 9000U, 29999U}) x[i] = 5;
  for (const std::size_t i : {7U, 25000U}) x[i] = -6;
  const Values g = normal_values(x.size(), 1, 2);
  const Values ones(x.size(), 1);
  for (const int bits : {1, 2, 4, 8})
    for (const char* alpha : {"0.2", "0.01", "0.9", "1.7"}) {
      const auto quantizer = make(bits, {{"alpha", alpha}});
      const Result result = run(*quantizer, x, g);
      EXPECT_NEAR(dot(result.grad_x, ones), dot(g, ones), 0.01) << bits << " " << alpha;
      EXPECT_NEAR(dot(result.grad_x, x), dot(g, result.y), 0.02) << bits << " " << alpha;
      EXPECT_EQ(result.grad.at("upper"), 0);
      EXPECT_EQ(result.grad.at("lower"), 0);
    }
}

TEST(Dsq, WhatIsClippedCountsForTheBounds) {
  const Values x = normal_values(20000, 1, 3);
  const Values g = normal_values(x.size(), 1, 4);
  const Values ones(x.size(), 1);
  const auto quantizer = make(3, {{"momentum", "0.25"}, {"upper", "1.5"}, {"lower", "-0.75"}});
  const Result result = run(*quantizer, x, g);
  EXPECT_FLOAT_EQ(*std::max_element(result.y.begin(), result.y.end()), 1.5F);
  EXPECT_EQ(*std::min_element(result.y.begin(), result.y.end()), -0.75F);
  const auto upper = static_cast<double>(result.grad.at("upper")) / 0.25;
  const auto lower = static_cast<double>(result.grad.at("lower")) / 0.25;
  EXPECT_NEAR(dot(result.grad_x, ones) + upper + lower, dot(g, ones), 0.01);
  EXPECT_NEAR(dot(result.grad_x, x) + 1.5 * upper - 0.75 * lower, dot(g, result.y), 0.02);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (x[i] > 1.5F || x[i] < -0.75F) {
      EXPECT_EQ(result.grad_x[i], 0) << x[i];
    }
  quantizer->evaluate();
  const Result evaluated = run(*quantizer, x, g);
  EXPECT_EQ(evaluated.grad.at("upper"), 0);
  EXPECT_EQ(evaluated.grad.at("lower"), 0);
  EXPECT_EQ(evaluated.grad_x, result.grad_x);  // the running bounds are the same here
}

// The derivative of the soft function itself, with the interval's index held, in double.
TEST(Dsq, AlphasGradientIsThatOfTheSoftFunction) {
  const Values x = normal_values(300, 1, 5);
  const Values g = normal_values(x.size(), 1, 6);
  const double m = static_cast<double>(*std::min_element(x.begin(), x.end()));
  const double delta = (static_cast<double>(*std::max_element(x.begin(), x.end())) - m) / 15;
  const auto soft = [&](double alpha) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double v = static_cast<double>(x[i]);
      const double mid = (std::floor((v - m) / delta) + 0.5) * delta + m;
      const double phi = std::tanh((v - mid) * std::log(2 / alpha - 1) / delta) / (1 - alpha);
      sum += static_cast<double>(g[i]) * phi / 2 * delta;
    }
    return sum;
  };
  for (const double alpha : {0.05, 0.2, 0.7, 1.3}) {
    const Result result = run(*make(4, {{"alpha", std::to_string(alpha)}}), x, g);
    const double slope = (soft(alpha + 1e-5) - soft(alpha - 1e-5)) / 2e-5;
    EXPECT_NEAR(static_cast<double>(result.grad.at("alpha")), slope, 1e-3 * (1 + std::abs(slope))) << alpha;
  }
}

// The reference divides by the spread of phi: wrong where no element is in the right half of its interval,
// infinite where all are on the grid.
TEST(Dsq, TheSignDependsOnTheElementAlone) {
  const Values g(5, 1);
  EXPECT_EQ(run(*make(4), {0, 0.1F, 2.2F, 2.5F, 15}, g).y, (Values{0, 0, 2, 2, 15}));
  EXPECT_EQ(run(*make(4), {0, 1, 2, 8, 15}, g).y, (Values{0, 1, 2, 8, 15}));
}

TEST(Dsq, ConstantTensorsPass) {
  const Values g = {1, -2, 3};
  for (const float v : {0.0F, 0.3F, -2.5F, 1e-42F, 1e9F}) {
    const Result result = run(*make(4), {v, v, v}, g);
    EXPECT_EQ(result.y, (Values{v, v, v}));
    EXPECT_EQ(result.grad_x, g);
    EXPECT_EQ(result.grad.at("alpha"), 0);
  }
  const Result one = run(*make(8, {}, Role::bias), {0.7F}, {2});
  EXPECT_EQ(one.y, Values{0.7F});
  EXPECT_EQ(one.grad_x, Values{2});
}

TEST(Dsq, AnyAlphaIsHarmless) {
  const Values x = normal_values(200, 1, 7);
  const Values g = normal_values(x.size(), 1, 8);
  const auto quantizer = make(4);
  const Values y = run(*quantizer, x, g).y;
  for (const float alpha : {-1.0F, 0.0F, 1e-4F, 0.5F, 0.9999F, 1.0F, 1.5F, 1.9995F, 2.0F, 30.0F}) {
    set(*quantizer, "alpha", alpha);
    const Result result = run(*quantizer, x, g);
    EXPECT_EQ(result.y, y) << alpha;
    for (const float v : result.grad_x) EXPECT_TRUE(std::isfinite(v)) << alpha;
    const bool inside = alpha >= 1e-3F && alpha <= 1.999F;
    EXPECT_TRUE(std::isfinite(result.grad.at("alpha"))) << alpha;
    EXPECT_EQ(result.grad.at("alpha") != 0, inside) << alpha;
  }
  set(*quantizer, "alpha", std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(std::isnan(run(*quantizer, x, g).grad_x[0]));
}

TEST(Dsq, RunningBoundsAreStoredOnlyWhereAsked) {
  const Values x = {-3, 0.5F, 2, 4};
  const Values g(4, 1);
  for (const bool stores : {false, true}) {
    const auto quantizer =
        make(4, {{"upper", "2"}, {"lower", "-1"}, {"store_running", stores ? "true" : "false"}});
    set(*quantizer, "upper", 3);
    EXPECT_FLOAT_EQ(run(*quantizer, x, g).y[3], 0.9F * 2 + 0.1F * 3);
    EXPECT_FLOAT_EQ(value(*quantizer, "running_upper"), stores ? 2.1F : 2);
    quantizer->evaluate();
    EXPECT_FLOAT_EQ(run(*quantizer, x, g).y[3], stores ? 2.1F : 2);
    EXPECT_FLOAT_EQ(value(*quantizer, "running_upper"), stores ? 2.1F : 2);
    EXPECT_EQ(value(*quantizer, "running_lower"), -1);
  }
}

TEST(Dsq, BoundsCanStartAtTheFirstBatch) {
  const Values g(4, 1);
  const auto quantizer = make(4, {{"bounds", "data"}});
  quantizer->evaluate();
  run(*quantizer, {-9, 0, 1, 9}, g);
  EXPECT_EQ(value(*quantizer, "upper"), 2147483648.0F);
  quantizer->train();
  run(*quantizer, {-3, 0.5F, 2, 4}, g);
  for (const char* prefix : {"", "running_"}) {
    EXPECT_EQ(value(*quantizer, std::string(prefix) + "upper"), 4);
    EXPECT_EQ(value(*quantizer, std::string(prefix) + "lower"), -3);
  }
  EXPECT_FLOAT_EQ(run(*quantizer, {-30, 0.5F, 2, 40}, g).y[3], 4);
  EXPECT_EQ(value(*quantizer, "upper"), 4);
}

TEST(Dsq, KeepsNothingFullSizeButTheInput) {
  const auto quantizer = make(4);
  Tensor x = Tensor::from_values({4, 10000}, normal_values(40000, 1, 9));
  x.set_requires_grad(true);
  const auto node = Tape::nodes(quantizer->forward(x)).at(0);
  std::size_t bytes = 0;
  for (const SavedTensor* saved : node->saved()) bytes += saved->bytes();
  EXPECT_LE(bytes, 40000U * 4 + 256);
}

TEST(Dsq, StartsAsTheReference) {
  const auto quantizer = make(8);
  EXPECT_EQ(value(*quantizer, "upper"), 2147483648.0F);
  EXPECT_EQ(value(*quantizer, "lower"), -4294967296.0F);
  EXPECT_EQ(value(*quantizer, "alpha"), 0.2F);
  EXPECT_EQ(value(*quantizer, "running_lower"), -4294967296.0F);
}

TEST(Dsq, RefusesWhatCantBe) {
  for (const Texts& options : std::vector<Texts>{{{"alpha", "0"}},
                                                 {{"alpha", "1"}},
                                                 {{"alpha", "2"}},
                                                 {{"alpha", "-0.2"}},
                                                 {{"momentum", "1.5"}},
                                                 {{"momentum", "-0.1"}},
                                                 {{"upper", "-1"}, {"lower", "1"}}})
    EXPECT_THROW(make(4, options), ValueError) << options.begin()->first;
  EXPECT_THROW(make(4)->forward(Tensor::zeros({0})), ShapeError);
}

}  // namespace
}  // namespace qtrain::quant
