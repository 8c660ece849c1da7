// What is particular to ttq and not in its golden cases: initial values, what it refuses, the three
// gradients, and networks whose activations stay float.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "engine/core/error.h"
#include "layers/pooling.h"
#include "layers/sequential.h"
#include "quant/quantized_layers.h"
#include "quant/wrap.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::expect_refused;

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

std::shared_ptr<Quantizer> make(const Texts& options = {}, const Shape& shape = {1, 1, 1, 1}, int bits = 2) {
  return make_quantizer("ttq", Role::weight, bits, LayerKind::convolution, options, shape);
}

Tensor weights(const Values& values) {
  return Tensor::from_values({static_cast<std::int64_t>(values.size()), 1, 1, 1}, values);
}

Tensor one_group(const Values& values) {
  return Tensor::from_values({1, static_cast<std::int64_t>(values.size()), 1, 1}, values);
}

Values wp(Quantizer& q) {
  return q.parameters()[0].values();
}
Values wn(Quantizer& q) {
  return q.parameters()[1].values();
}

// --- initial values
// --------------------------------------------------------------------------------------------------------

TEST(Ttq, TheFirstWeightsGiveTheValues) {
  const auto quantizer = make({{"threshold", "0.25"}});
  EXPECT_EQ(quantizer->parameters()[0].shape(), (Shape{1, 1}));
  // D = 0.25: 0.2 and -0.25 become 0.
  const Values y = quantizer->forward(one_group({1, 0.5F, 0.2F, -0.25F, -0.75F})).values();
  EXPECT_EQ(wp(*quantizer), Values{0.75F});
  EXPECT_EQ(wn(*quantizer), Values{0.75F});
  EXPECT_EQ(y, (Values{0.75F, 0.75F, 0, 0, -0.75F}));
  quantizer->forward(one_group({10, -10}));
  EXPECT_EQ(wp(*quantizer), Values{0.75F});  // only the first
}

TEST(Ttq, EachGroupHasItsOwn) {
  const auto quantizer = make({}, {3, 1, 1, 2});
  quantizer->forward(Tensor::from_values({3, 1, 1, 2}, {1, -2, 3, 5, 0, 0}));
  EXPECT_EQ(quantizer->parameters()[0].shape(), (Shape{3, 1}));
  EXPECT_EQ(wp(*quantizer), (Values{1, 4, 0}));
  EXPECT_EQ(wn(*quantizer), (Values{2, 4, 0}));  // an empty side takes the other's mean
}

TEST(Ttq, GivenValuesStay) {
  const auto quantizer = make({{"wp", "0.5"}});
  EXPECT_EQ(wp(*quantizer), Values{0.5F});
  quantizer->forward(one_group({1, -3}));
  EXPECT_EQ(wp(*quantizer), Values{0.5F});
  EXPECT_EQ(wn(*quantizer), Values{3});
}

TEST(Ttq, LoadedValuesStay) {
  const auto quantizer = make();
  quantizer->load_state_dict({{"wp", Tensor::full({1, 1}, -2)}, {"wn", Tensor::full({1, 1}, 7)}});
  EXPECT_EQ(quantizer->forward(one_group({1, -3})).values(), (Values{-2, -7}));
  EXPECT_EQ(wn(*quantizer), Values{7});
}

TEST(Ttq, EvaluationUsesTheValuesWithoutKeepingThem) {
  const auto quantizer = make();
  quantizer->evaluate();
  EXPECT_EQ(quantizer->forward(one_group({1, 0, -3})).values(), (Values{1, 0, -3}));
  EXPECT_EQ(wp(*quantizer), Values{0});
  quantizer->train();
  quantizer->forward(one_group({2, 0, -4}));
  EXPECT_EQ(wp(*quantizer), Values{2});
}

// The sum of the magnitudes overflows, their mean doesn't.
TEST(Ttq, HugeWeightsHaveAMean) {
  const auto quantizer = make();
  quantizer->forward(one_group(Values(200, 3e38F)));
  EXPECT_NEAR(wp(*quantizer)[0] / 3e38F, 1, 1e-6F);
}

// --- gradients
// -------------------------------------------------------------------------------------------------------------

struct Gradients {
  Values x, wp, wn;
};

Gradients gradients(const std::string& rule) {
  const auto quantizer = make({{"backward", rule}, {"wp", "2"}, {"wn", "3"}});
  Tensor x = one_group({1, 0.01F, -1});
  x.set_requires_grad(true);
  Tape::backward(quantizer->forward(x), one_group({10, 100, 1000}));
  return {x.grad().values(), quantizer->parameters()[0].grad().values(),
          quantizer->parameters()[1].grad().values()};
}

TEST(Ttq, ThreeGradients) {
  const Gradients exact = gradients("exact");
  EXPECT_EQ(exact.x, (Values{20, 100, 3000}));
  EXPECT_EQ(exact.wp, Values{10});
  EXPECT_EQ(exact.wn, Values{-1000});
  const Gradients paper = gradients("paper");
  EXPECT_EQ(paper.x, exact.x);
  EXPECT_EQ(paper.wp, exact.wp);
  EXPECT_EQ(paper.wn, Values{1000});
  const Gradients reference = gradients("reference");
  EXPECT_EQ(reference.x, (Values{20, 0, 0}));
  EXPECT_EQ(reference.wp, exact.wp);
  EXPECT_EQ(reference.wn, Values{1000});
}

TEST(Ttq, GradientsOfTheValuesCanBeMeans) {
  const auto quantizer = make({{"grad_scale", "mean"}, {"wp", "2"}, {"wn", "3"}});
  Tensor x = one_group({1, 0.01F, -1, -1});
  x.set_requires_grad(true);
  Tape::backward(quantizer->forward(x), one_group({10, 100, 1000, 1000}));
  EXPECT_EQ(x.grad().values(), (Values{20, 100, 3000, 3000}));
  EXPECT_EQ(quantizer->parameters()[0].grad().values(), Values{2.5F});
  EXPECT_EQ(quantizer->parameters()[1].grad().values(), Values{-500});
}

TEST(Ttq, WhatIsNoNumberShows) {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto quantizer = make({{"wp", "2"}, {"wn", "3"}});
  EXPECT_TRUE(std::isnan(quantizer->forward(one_group({1, nan, -1})).values()[1]));
  EXPECT_TRUE(std::isnan(quantizer->forward(one_group({1, -infinity, -1})).values()[1]));
}

// --- what is refused
// -------------------------------------------------------------------------------------------------------

TEST(Ttq, IsTernary) {
  for (const int bits : {1, 3, 4, 8})
    expect_refused([&] { make({}, {1, 1, 1, 1}, bits); }, {"-wn, 0 and wp", "--w-bits 2"});
  expect_refused([] { make({{"levels", "4"}}); }, {"4 levels", "expected 3"});
  const auto quantizer = make();
  EXPECT_THROW(quantizer->set_bits(4), ValueError);
  EXPECT_EQ(quantizer->bits(), 2);
  quantizer->set_bits(32);
  EXPECT_EQ(quantizer->forward(weights({1, -3})).values(), (Values{1, -3}));
}

TEST(Ttq, OptionsHaveRanges) {
  for (const char* threshold : {"1", "-0.1", "3"})
    expect_refused([&] { make({{"threshold", threshold}}); }, {"threshold", "share of the largest"});
  expect_refused([] { make({{"wp", "-1"}}); }, {"wp"});
  expect_refused([] { make_quantizer("ttq", Role::activation, 2, LayerKind::convolution); },
                 {"doesn't quantize activations"});
}

// --- networks
// --------------------------------------------------------------------------------------------------------------

std::shared_ptr<Sequential> network() {
  const auto conv = [] {
    return std::make_shared<Conv2d>(
        Conv2dOptions{.in_channels = 3, .out_channels = 3, .kernel = square(1), .bias = false});
  };
  auto made = std::make_shared<Sequential>();
  made->append(conv()).append(conv()).append(conv());
  return made;
}

TEST(Ttq, FirstAndLastLayerKeepFloatWeights) {
  const auto made = network();
  quantize_network(
      *made,
      {.weight_quantizer = "ttq", .activation_quantizer = "none", .weight_bits = 2, .activation_bits = 2});
  const auto layer = [&](const std::string& path) {
    return dynamic_cast<const QuantizedLayer*>(made->child(path).get());
  };
  EXPECT_EQ(layer("0"), nullptr);
  ASSERT_NE(layer("1"), nullptr);
  EXPECT_EQ(layer("1")->weight_quantizer()->bits(), 2);
  EXPECT_EQ(layer("1")->input_quantizer(), nullptr);
  EXPECT_EQ(layer("2"), nullptr);
}

}  // namespace
}  // namespace qtrain::quant
