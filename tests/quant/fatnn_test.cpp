// What is particular to fatnn and not in its golden cases: what it refuses, initial values, the scale of
// closed_form over several batches, and the gradients at the borders.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "quant/registry.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::expect_refused;
using testing_support::normal_values;

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

std::shared_ptr<Quantizer> make(Role role, int bits, const Texts& options = {},
                                const Shape& shape = {1, 1, 1, 1}) {
  return make_quantizer("fatnn", role, bits, LayerKind::convolution, options, shape);
}

Tensor row(const Values& values) {
  return Tensor::from_values({static_cast<std::int64_t>(values.size()), 1}, values);
}

Tensor named(const NamedTensors& tensors, const std::string& name) {
  for (const NamedTensor& t : tensors)
    if (t.name == name) return t.tensor;
  ADD_FAILURE() << "no " << name;
  return {};
}

float basis(Quantizer& quantizer) {
  return named(quantizer.named_buffers(), "basis").item();
}

struct Gradients {
  Values x;
  std::vector<Values> alpha;
};

Gradients gradients(Quantizer& quantizer, const Values& values, const Values& g) {
  Tensor x = row(values);
  x.set_requires_grad(true);
  Tape::backward(quantizer.forward(x), row(g));
  Gradients result{x.grad().values(), {}};
  for (const Tensor& p : quantizer.parameters()) result.alpha.push_back(p.grad().values());
  return result;
}

// --- levels
// ----------------------------------------------------------------------------------------------------------------

TEST(Fatnn, BitsAreLevels) {
  EXPECT_EQ(make(Role::weight, 2)->parameters().size(), 2U);
  EXPECT_EQ(make(Role::activation, 1)->parameters().size(), 1U);
  EXPECT_EQ(make(Role::activation, 2)->parameters().size(), 3U);
  EXPECT_EQ(make(Role::activation, 2, {{"levels", "3"}})->parameters().size(), 2U);
  EXPECT_EQ(make(Role::activation, 2, {{"half_range", "false"}})->parameters().size(), 2U);
}

TEST(Fatnn, RefusesLevelsThatItDoesntHave) {
  expect_refused([] { make(Role::weight, 4); }, {"-1, 0 and 1", "4 bits", "--w-bits 2"});
  expect_refused([] { make(Role::weight, 1); }, {"take 2 bits"});
  expect_refused([] { make(Role::activation, 4); }, {"2 levels (1 bit) or 4 (2 bits)", "--a-bits 2"});
  expect_refused([] { make(Role::activation, 2, {{"levels", "5"}}); }, {"'levels'", "2 to 2^bits"});
  expect_refused([] { make(Role::weight, 2, {{"levels", "4"}}); }, {"4 levels", "expected 3"});
  expect_refused(
      [] {
        make(Role::activation, 2, {{"half_range", "false"}, {"levels", "4"}});
      },
      {"full range", "expected 3"});
  expect_refused([] { make(Role::activation, 1, {{"half_range", "false"}}); }, {"-1, 0 and 1"});
}

TEST(Fatnn, RefusesOptionsThatDontGoTogether) {
  expect_refused([] { make(Role::activation, 2, {{"custom_update", "true"}}); }, {"closed_form"});
  expect_refused(
      [] {
        make(Role::activation, 2, {{"closed_form", "true"}, {"groups", "2"}}, {1, 4, 1, 1});
      },
      {"2 groups"});
  expect_refused([] { make(Role::weight, 2, {{"scale", "0"}}); }, {"scale"});
  expect_refused([] { make(Role::activation, 2, {{"boundary", "-1"}}); }, {"boundary"});
}

TEST(Fatnn, FewerBitsUseTheFirstSteps) {
  const auto quantizer = make(Role::activation, 2, {{"scale", "1"}});
  const Values x = {-1, 0.4F, 0.6F, 1.6F, 2.6F, 9};
  EXPECT_EQ(quantizer->forward(row(x)).values(), (Values{0, 0, 1, 2, 3, 3}));
  quantizer->set_bits(1);
  EXPECT_EQ(quantizer->forward(row(x)).values(), (Values{0, 0, 1, 1, 1, 1}));
  quantizer->set_bits(32);
  EXPECT_EQ(quantizer->forward(row(x)).values(), x);
  EXPECT_THROW(quantizer->set_bits(3), ValueError);
  EXPECT_EQ(quantizer->bits(), 32);
  quantizer->set_bits(2);
  EXPECT_EQ(quantizer->forward(row(x)).values(), (Values{0, 0, 1, 2, 3, 3}));
  expect_refused([] { make(Role::activation, 1)->set_bits(2); }, {"fewer steps"});
}

TEST(Fatnn, At32BitsNothingIsDone) {
  const Values x = normal_values(50, 1);
  EXPECT_EQ(make(Role::weight, 32)->forward(row(x)).values(), x);
  EXPECT_EQ(make(Role::weight, 32, {{"levels", "3"}})->forward(row(x)).values(), x);
}

TEST(Fatnn, StepsStartAtTheScale) {
  for (const Tensor& alpha : make(Role::weight, 2, {{"scale", "0.7"}}, {8, 3, 3, 3})->parameters()) {
    EXPECT_EQ(alpha.shape(), (Shape{8, 1, 1, 1}));
    EXPECT_EQ(alpha.values()[7], 0.7F);
  }
  for (const Tensor& alpha : make(Role::activation, 2, {{"scale", "3"}, {"boundary", "2"}})->parameters())
    EXPECT_EQ(alpha.values(), Values{1.5F});
}

// Weights are much smaller than 1, where the codes begin.
TEST(Fatnn, SmallWeightsAreNormalizedFirst) {
  const Values y = make(Role::weight, 2)->forward(row(normal_values(1000, 0.01))).values();
  EXPECT_NEAR(static_cast<double>(std::count(y.begin(), y.end(), 0.0F)), 683, 60);
  EXPECT_GT(std::count(y.begin(), y.end(), 1.0F), 100);
  EXPECT_GT(std::count(y.begin(), y.end(), -1.0F), 100);
}

// --- gradients
// -------------------------------------------------------------------------------------------------------------

// The codes without the rounding are a continuous function: its derivatives, in double.
TEST(Fatnn, GradientsAreThoseOfTheSurrogate) {
  const std::vector<double> alpha = {1.3, -0.7, 2.1};
  const auto surrogate = [](double x, const std::vector<double>& steps) {
    double offset = 0;
    double sum = 0;
    for (const double step : steps) {
      const double a = std::abs(step);
      sum += std::clamp((x - offset) * a, 0.0, 1.0);
      offset += 1 / a;
    }
    return sum;
  };
  const auto quantizer = make(Role::activation, 2);
  const std::vector<Tensor> parameters = quantizer->parameters();
  for (std::size_t i = 0; i < 3; ++i)
    parameters[i].copy_from(Tensor::from_values({1}, {static_cast<float>(alpha[i])}));
  const Values x = normal_values(300, 2);
  const Values g = normal_values(300, 1, 2);
  const Gradients computed = gradients(*quantizer, x, g);
  const double step = 1e-6;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto v = static_cast<double>(x[i]);
    const double slope = (surrogate(v + step, alpha) - surrogate(v - step, alpha)) / (2 * step);
    EXPECT_NEAR(static_cast<double>(computed.x[i]), slope * static_cast<double>(g[i]), 1e-4) << v;
  }
  for (std::size_t k = 0; k < 3; ++k) {
    std::vector<double> more = alpha;
    std::vector<double> less = alpha;
    more[k] += step;
    less[k] -= step;
    double expected = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      expected += static_cast<double>(g[i]) *
                  (surrogate(static_cast<double>(x[i]), more) - surrogate(static_cast<double>(x[i]), less)) /
                  (2 * step);
    EXPECT_NEAR(static_cast<double>(computed.alpha[k][0]), expected, 1e-3) << k;
  }
}

// Three of four pass: a factor between 1 and 2, which the reference leaves out. The values stay what they
// were.
TEST(Fatnn, SteScaleHasNoThreshold) {
  const Texts options = {{"levels", "2"}, {"scale", "1"}, {"clamp_grad", "STE-scale"}};
  const auto quantizer = make(Role::activation, 1, options);
  const Values x = {0.1F, 0.6F, 0.9F, 5};
  EXPECT_EQ(quantizer->forward(row(x)).values(), (Values{0, 1, 1, 1}));
  const float k = std::sqrt(4.0F / 3.0F);
  const Gradients computed = gradients(*quantizer, x, {1, 1, 1, 1});
  EXPECT_EQ(computed.x, (Values{k, k, k, 0}));
  EXPECT_NEAR(computed.alpha[0][0], k * 1.6F, 1e-6F);
  EXPECT_EQ(gradients(*quantizer, {5, 6, 7, 8}, {1, 1, 1, 1}).x, (Values{0, 0, 0, 0}));
}

TEST(Fatnn, SteScaleCountsOverAllGroups) {
  const auto quantizer =
      make(Role::activation, 1, {{"scale", "1"}, {"clamp_grad", "STE-scale"}, {"groups", "2"}}, {1, 2, 1, 1});
  Tensor x = Tensor::from_values({2, 2, 1, 1}, {0.1F, 5, 0.9F, 5});
  x.set_requires_grad(true);
  Tape::backward(quantizer->forward(x), Tensor::full({2, 2, 1, 1}, 1));
  const float k = std::sqrt(2.0F);
  EXPECT_EQ(x.grad().values(), (Values{k, 0, k, 0}));
}

TEST(Fatnn, AStepOfSizeZeroGivesNumbers) {
  const auto quantizer = make(Role::activation, 2);
  quantizer->parameters()[0].copy_from(Tensor::zeros({1}));
  const Gradients computed = gradients(*quantizer, {0, 1, -1, 1e30F}, {1, 1, 1, 1});
  for (const Values& values : {computed.x, computed.alpha[0], computed.alpha[1], computed.alpha[2]})
    for (const float v : values) EXPECT_TRUE(std::isfinite(v));
}

// --- closed_form
// -----------------------------------------------------------------------------------------------------------

TEST(Fatnn, ClosedFormFitsTheBatch) {
  const auto quantizer = make(Role::activation, 2, {{"closed_form", "true"}, {"scale", "1"}});
  // Codes 0, 1, 2, 3: (1.2 + 2*1.8 + 3*4) / 14
  const Values y = quantizer->forward(row({0.3F, 1.2F, 1.8F, 4})).values();
  EXPECT_NEAR(basis(*quantizer), 1.2F, 1e-6F);
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[3], 3 * basis(*quantizer));
  quantizer->forward(row({0.1F, 0.2F, -0.1F, 0.2F}));  // no code but 0: the mean
  EXPECT_NEAR(basis(*quantizer), 0.1F, 1e-6F);
}

// Every batch counts once.
TEST(Fatnn, CustomUpdateIsTheMeanOverBatches) {
  const auto quantizer =
      make(Role::activation, 2, {{"closed_form", "true"}, {"custom_update", "true"}, {"scale", "1"}});
  quantizer->forward(row({2}));  // 2 / 2
  EXPECT_NEAR(basis(*quantizer), 1, 1e-6F);
  quantizer->forward(row({6}));  // 6 / 3
  EXPECT_NEAR(basis(*quantizer), 1.5F, 1e-6F);
  quantizer->forward(row({9}));  // 9 / 3
  EXPECT_NEAR(basis(*quantizer), 2, 1e-6F);
}

TEST(Fatnn, EvaluationChangesNothing) {
  const auto quantizer =
      make(Role::activation, 2, {{"closed_form", "true"}, {"custom_update", "true"}, {"scale", "1"}});
  quantizer->forward(row({2}));
  quantizer->forward(row({6}));
  quantizer->evaluate();
  EXPECT_EQ(quantizer->forward(row({30})).values(), Values{4.5F});
  EXPECT_EQ(basis(*quantizer), 1.5F);
  EXPECT_EQ(*named(quantizer->named_buffers(), "forwards").data<std::int64_t>(), 2);
}

// The scale follows the batches while the values are still float, so that the mean is over all of them.
TEST(Fatnn, WarmUpMovesTheScale) {
  const auto quantizer =
      make(Role::activation, 2,
           {{"closed_form", "true"}, {"custom_update", "true"}, {"scale", "1"}, {"stable", "1"}});
  EXPECT_EQ(quantizer->forward(row({6})).values(), Values{6});
  EXPECT_EQ(basis(*quantizer), 2);
  EXPECT_EQ(quantizer->forward(row({12})).values(), Values{9});  // (2 + 4) / 2 = 3
}

TEST(Fatnn, BackwardMayComeAfterTheNextForward) {
  const auto quantizer = make(Role::activation, 2, {{"closed_form", "true"}, {"scale", "1"}});
  Tensor x = row({1.6F, 2.9F});  // codes 2, 3: 11.9 / 13
  x.set_requires_grad(true);
  const Tensor y = quantizer->forward(x);
  quantizer->forward(row({30, 60}));
  Tape::backward(y, row({1, 1}));
  EXPECT_NEAR(x.grad().values()[0], 11.9F / 13, 1e-6F);
}

// --- padding
// ---------------------------------------------------------------------------------------------------------------

TEST(Fatnn, ZerosArePaddedFirstWhereTheyCount) {
  EXPECT_FALSE(make(Role::activation, 2)->pads_first());
  EXPECT_TRUE(make(Role::activation, 2, {{"clamp_grad", "STE-scale"}})->pads_first());
  EXPECT_TRUE(make(Role::activation, 2, {{"closed_form", "true"}})->pads_first());
  EXPECT_FALSE(
      make(Role::activation, 2, {{"closed_form", "true"}, {"padding_after_quant", "true"}})->pads_first());
}

}  // namespace
}  // namespace qtrain::quant
