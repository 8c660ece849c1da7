// What is particular to dorefa and not in its golden cases.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "quant/quantized_layers.h"
#include "quant/wrap.h"
#include "tests/quant/support.h"
#include "zoo/registry.h"

namespace qtrain::quant {
namespace {

using testing_support::expect_refused;
using testing_support::normal_values;

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

struct Result {
  Values y;
  Values grad_x;
};

Result run(Quantizer& quantizer, const Tensor& values, const Values& g) {
  Tensor x = values.clone();
  x.set_requires_grad(true);
  const Tensor y = quantizer.forward(x);
  if (y.producer() == nullptr) return {y.values(), g};
  Tape::backward(y, Tensor::from_values(x.shape(), g));
  return {y.values(), x.grad().values()};
}

Result run(const std::string& name, Role role, int bits, const Texts& options, const Values& values,
           const Values& g) {
  const Shape shape{static_cast<std::int64_t>(values.size()), 1};
  const auto quantizer = make_quantizer(name, role, bits, LayerKind::convolution, options, shape);
  return run(*quantizer, Tensor::from_values(shape, values), g);
}

std::shared_ptr<Quantizer> weight(int bits, const Texts& options) {
  return make_quantizer("dorefa", Role::weight, bits, LayerKind::convolution, options);
}

// --- weights
// -----------------------------------------------------------------------------------------------------

// sat's `original` scheme without rescaling is the same function.
TEST(DorefaWeight, IsTheFunctionThatSatStartsFrom) {
  const Values w = normal_values(20000, 0.3, 1);
  const Values g = normal_values(20000, 1, 2);
  for (const int bits : {1, 2, 3, 4, 8, 16}) {
    const Result dorefa = run("dorefa", Role::weight, bits, {}, w, g);
    const Result sat = run("sat", Role::weight, bits, {{"scheme", "original"}}, w, g);
    EXPECT_EQ(dorefa.y, sat.y) << bits;
    EXPECT_EQ(dorefa.grad_x, sat.grad_x) << bits;
  }
}

TEST(DorefaWeight, NeitherLevelsNorBoundaryNorGroupsTouchTheGradient) {
  const Values w = normal_values(64, 0.5, 3);
  const Values g = normal_values(64, 1, 4);
  const Result plain = run("dorefa", Role::weight, 4, {}, w, g);
  for (const Texts& options : {Texts{{"levels", "3"}}, Texts{{"boundary", "0.75"}}, Texts{{"groups", "4"}}})
    EXPECT_EQ(run("dorefa", Role::weight, 4, options, w, g).grad_x, plain.grad_x);
  EXPECT_EQ(run("dorefa", Role::weight, 4, {{"groups", "4"}}, w, g).y, plain.y);
}

TEST(DorefaWeight, ABoundaryIsAnotherGridAndClipsNothing) {
  const Values y = run("dorefa", Role::weight, 2, {{"boundary", "2"}}, {-3, 0, 3}, {1, 1, 1}).y;
  EXPECT_FLOAT_EQ(y[0], -1);
  EXPECT_FLOAT_EQ(y[1], 1.0F / 3);  // 2 (1 2/3) - 1
  EXPECT_FLOAT_EQ(y[2], 5.0F / 3);  // 2 (2 2/3) - 1: above 1
}

TEST(DorefaWeight, AnAllZeroTensorHasGradientZero) {
  const Result result = run("dorefa", Role::weight, 2, {}, {0, 0, 0}, {1, 2, 3});
  for (const float v : result.y) EXPECT_FLOAT_EQ(v, 1.0F / 3);  // 1.5 rounds to even: 2 of 3
  EXPECT_EQ(result.grad_x, (Values{0, 0, 0}));
}

TEST(DorefaWeight, AGroupWithoutSpreadNormalizesToZero) {
  const auto quantizer = make_quantizer("dorefa", Role::weight, 2, LayerKind::convolution,
                                        {{"adaptive", "var-mean"}}, {2, 1, 1, 3});
  const Tensor w = Tensor::from_values({2, 1, 1, 3}, {0.5F, 0.5F, 0.5F, -1, 0, 1});
  const Result result = run(*quantizer, w, {1, 1, 1, 1, 1, 1});
  EXPECT_FLOAT_EQ(result.y[0], 1.0F / 3);
  EXPECT_EQ((Values{result.grad_x.begin(), result.grad_x.begin() + 3}), (Values{0, 0, 0}));
  EXPECT_FLOAT_EQ(result.y[3], -1);
}

TEST(DorefaWeight, TheMeanOfMagnitudesWithTheSign) {
  const Texts mean{{"binary", "mean"}};
  const Result result = run("dorefa", Role::weight, 1, mean, {-0.5F, 0, -0.0F, 1.5F}, {1, 2, 3, 4});
  EXPECT_EQ(result.y, (Values{-0.5F, 0.5F, 0.5F, 0.5F}));
  EXPECT_EQ(result.grad_x, (Values{1, 2, 3, 4}));
  EXPECT_EQ(run("dorefa", Role::weight, 2, {{"binary", "mean"}, {"levels", "2"}}, {-1, 3}, {1, 1}).y,
            (Values{-2, 2}));
  EXPECT_EQ(run("dorefa", Role::weight, 1, mean, {0, 0}, {1, 1}).y, (Values{0, 0}));
  const float most = std::numeric_limits<float>::max();
  for (const float v : run("dorefa", Role::weight, 1, mean, {most, -most, most}, {1, 1, 1}).y)
    EXPECT_TRUE(std::isfinite(v));
  for (const float v : run("dorefa", Role::weight, 1, mean, {1, std::nanf(""), 2}, {1, 1, 1}).y)
    EXPECT_TRUE(std::isnan(v));
}

TEST(DorefaWeight, RefusesWhatItCantDo) {
  expect_refused([] { weight(4, {{"binary", "mean"}}); }, "2 levels");
  expect_refused([] { weight(2, {{"levels", "5"}}); }, "'levels'");
  expect_refused([] { weight(2, {{"levels", "1"}}); }, "'levels'");
  expect_refused([] { weight(2, {{"levels", "-3"}}); }, "'levels'");
  for (const char* boundary : {"0", "-1", "1e7", "1e-7"})
    expect_refused([&] { weight(2, {{"boundary", boundary}}); }, "'boundary'");
  expect_refused([] { weight(2, {{"correlate", "2"}}); }, "unknown option");  // there is no clip to move
}

TEST(DorefaWeight, OtherBitsAreRefusedWhereTheOptionsForbidThem) {
  const auto mean = weight(1, {{"binary", "mean"}});
  expect_refused([&] { mean->set_bits(2); }, "2 levels");
  EXPECT_EQ(mean->bits(), 1);
  mean->set_bits(float_bits);
  const auto five = weight(3, {{"levels", "5"}});
  expect_refused([&] { five->set_bits(2); }, "'levels'");
  EXPECT_EQ(five->bits(), 3);
}

TEST(DorefaWeight, ThirtyTwoBitsAreFloatWhateverTheLevels) {
  const Values w = normal_values(10, 0.3, 5);
  EXPECT_EQ(run("dorefa", Role::weight, 32, {{"levels", "3"}}, w, Values(10, 1)).y, w);
}

TEST(DorefaWeight, WarmsUpInTrainingForwardsOnly) {
  const auto quantizer = weight(2, {{"stable", "2"}});
  const Tensor w = Tensor::from_values({4}, normal_values(4, 0.3, 6));
  const auto returns_w = [&](bool training) {
    quantizer->train(training);
    return quantizer->forward(w).values() == w.values();
  };
  EXPECT_TRUE(returns_w(false));
  EXPECT_TRUE(returns_w(false));
  EXPECT_TRUE(returns_w(true));
  EXPECT_TRUE(returns_w(false));  // still warming up
  EXPECT_TRUE(returns_w(true));
  EXPECT_FALSE(returns_w(false));
  EXPECT_FALSE(returns_w(true));
}

// --- activations
// -------------------------------------------------------------------------------------------------

TEST(DorefaActivation, BordersAndSpecialValues) {
  const float inf = std::numeric_limits<float>::infinity();
  const Values x = {-inf, -1e30F, -1e-3F, -0.0F, 0, 0.5F, 1, 1.01F, 1e30F, inf};
  const Result result = run("dorefa", Role::activation, 2, {}, x, Values(x.size(), 1));
  EXPECT_EQ(result.y, (Values{0, 0, 0, 0, 0, 2.0F / 3, 1, 1, 1, 1}));  // 1.5 rounds to even: 2 of 3
  EXPECT_EQ(result.grad_x, (Values{0, 0, 0, 1, 1, 1, 1, 0, 0, 0}));    // both ends pass
}

TEST(DorefaActivation, LevelsNeedNoPowerOfTwo) {
  const Values x = {0, 0.2F, 0.3F, 0.7F, 0.8F, 1};
  const Result result = run("dorefa", Role::activation, 4, {{"levels", "3"}}, x, Values(6, 1));
  EXPECT_EQ(result.y, (Values{0, 0, 0.5F, 0.5F, 1, 1}));
}

TEST(DorefaActivation, HasNeitherParametersNorState) {
  const auto quantizer = make_quantizer("dorefa", Role::activation, 4, LayerKind::convolution);
  EXPECT_TRUE(quantizer->state_dict().empty());
  EXPECT_FALSE(quantizer->pads_first());  // zero stays zero
}

// --- networks
// ----------------------------------------------------------------------------------------------------

TEST(DorefaNetwork, TheFirstAndTheLastLayerStayFloatUnlessTold) {
  const auto layer_bits = [](const WrapOptions& options, const std::string& path) {
    const auto network = zoo::make_model("resnet20", {});
    quantize_network(*network, options);
    const auto* layer = dynamic_cast<QuantizedLayer*>(network->child(path).get());
    if (layer == nullptr) return std::pair(float_bits, float_bits);
    const Quantizer* input = layer->input_quantizer();
    return std::pair(layer->weight_quantizer()->bits(), input == nullptr ? float_bits : input->bits());
  };
  for (const char* name : {"dorefa", "pact"}) {
    WrapOptions options{.weight_quantizer = name, .activation_quantizer = name};
    options.weight_options = {{"levels", "3"}};
    EXPECT_EQ(layer_bits(options, "conv1"), std::pair(float_bits, float_bits));
    EXPECT_EQ(layer_bits(options, "fc"), std::pair(float_bits, float_bits));
    EXPECT_EQ(layer_bits(options, "layer2.0.downsample.0"), std::pair(4, 4));
    options.last.treatment = EdgeTreatment::full;
    EXPECT_EQ(layer_bits(options, "fc"), std::pair(4, 4));
  }
}

}  // namespace
}  // namespace qtrain::quant
