// What is particular to xnor and not in its golden cases: where the reference's code doesn't do what it
// should, scales by hand, padding, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/core/error.h"
#include "quant/quantized_layers.h"
#include "quant/wrap.h"
#include "tests/quant/support.h"
#include "zoo/registry.h"

namespace qtrain::quant {
namespace {

using testing_support::expect_refused;

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

std::shared_ptr<Quantizer> make(Role role, const Texts& options = {}, const Shape& shape = {1, 1, 1, 1},
                                int bits = 1, LayerKind layer = LayerKind::convolution) {
  return make_quantizer("xnor", role, bits, layer, options, shape);
}

// The reference stays in its warm-up for ever.
TEST(Xnor, QuantizesFromTheFirstForwardOn) {
  for (const bool training : {true, false}) {
    const auto quantizer = make(Role::activation);
    quantizer->train(training);
    EXPECT_EQ(quantizer->forward(Tensor::from_values({4, 1}, {-2, -0.1F, 0, 3})).values(),
              (Values{-1, -1, 1, 1}));
    EXPECT_TRUE(quantizer->named_buffers().empty());
  }
  const auto stable = make(Role::activation, {{"stable", "1"}});
  const Tensor x = Tensor::from_values({2, 1}, {-2, 3});
  EXPECT_EQ(stable->forward(x).values(), x.values());
  EXPECT_EQ(stable->forward(x).values(), (Values{-1, 1}));
}

TEST(Xnor, ScalesByPositionOrByChannel) {
  // channels {1, -3} and {5, -5} at two positions
  const Tensor x = Tensor::from_values({1, 2, 1, 2}, {1, -3, 5, -5});
  EXPECT_EQ(make(Role::activation, {{"scale", "channel"}})->forward(x).values(), (Values{3, -4, 3, -4}));
  EXPECT_EQ(make(Role::activation, {{"scale", "resolution"}})->forward(x).values(), (Values{2, -2, 5, -5}));
}

TEST(Xnor, ScalesBelongToSamples) {
  const Tensor x = Tensor::from_values({2, 1, 1, 2}, {1, -3, 10, -30});
  EXPECT_EQ(make(Role::activation, {{"scale", "resolution"}})->forward(x).values(), (Values{2, -2, 20, -20}));
}

// In the reference, groups other than one or all channels and two-dimensional weights crash.
TEST(Xnor, AnyGroupsAndLinearWeightsWork) {
  const Tensor w = Tensor::from_values({2, 2, 1, 2}, {1, -3, 2, -2, 5, 7, -1, 1});
  EXPECT_EQ(make(Role::weight, {{"groups", "-1"}}, w.shape())->forward(w).values(),
            (Values{2, -2, 2, -2, 6, 6, -1, 1}));
  const auto gained =
      make(Role::weight, {{"groups", "4"}, {"gamma", "true"}, {"adaptive", "var-mean"}}, w.shape());
  Tensor x = w.clone();
  x.set_requires_grad(true);
  const Tensor y = gained->forward(x);
  Tape::backward(y, Tensor::full(w.shape(), 1));
  for (const float v : y.values()) EXPECT_TRUE(std::isfinite(v));
  EXPECT_EQ(gained->parameters()[0].grad().numel(), 4);
  const Tensor linear = Tensor::from_values({2, 2}, {1, -3, 2, -2});
  EXPECT_EQ(make(Role::weight, {}, linear.shape(), 1, LayerKind::linear)->forward(linear).values(),
            (Values{2, -2, 2, -2}));
}

TEST(Xnor, TheScaleIsAConstantForTheGradient) {
  Tensor w = Tensor::from_values({1, 1, 2, 2}, {0.5F, -0.5F, 1, -2});
  w.set_requires_grad(true);
  const auto quantizer = make(Role::weight, {{"grad", "STE"}}, w.shape());
  Tape::backward(quantizer->forward(w), Tensor::from_values(w.shape(), {1, 2, 3, 4}));
  EXPECT_EQ(w.grad().values(), (Values{1, 2, 0, 0}));
}

// A window of ones over one pixel: the padded zeros count as +1, or stay 0.
TEST(Xnor, PaddedZerosAreQuantizedUnlessPaddingComesAfter) {
  const auto convolved = [](const Texts& options) {
    const auto input = make(Role::activation, options);
    QuantizedConv2d layer(
        Conv2d(Tensor::full({1, 1, 3, 3}, 1), Tensor(), {.pad_begin = square(1), .pad_end = square(1)}),
        {.input = input});
    return layer.forward(Tensor::full({1, 1, 1, 1}, -0.5F)).values();
  };
  EXPECT_EQ(convolved({}), (Values{7}));
  EXPECT_EQ(convolved({{"padding_after_quant", "true"}}), (Values{-1}));
}

TEST(Xnor, OneBitOnly) {
  for (const Role role : {Role::weight, Role::activation}) {
    for (const int bits : {2, 4, 31}) expect_refused([&] { make(role, {}, {1, 1, 1, 1}, bits); }, "one bit");
    expect_refused([&] { make(role, {{"levels", "3"}}); }, "'levels'; got 3");
    const auto quantizer = make(role);
    expect_refused([&] { quantizer->set_bits(2); }, "1 bit");
    EXPECT_EQ(quantizer->bits(), 1);
    quantizer->set_bits(32);
    const Tensor x = Tensor::from_values({2, 1}, {-2, 3});
    EXPECT_EQ(quantizer->forward(x).values(), x.values());
  }
}

TEST(Xnor, ALinearInputHasNoResolution) {
  expect_refused(
      [] {
        make(Role::activation, {{"scale", "resolution"}}, {1, 8}, 1, LayerKind::linear);
      },
      "one position");
}

TEST(Xnor, TheFirstAndTheLastLayerStayFloat) {
  for (const std::string name : {"xnor", "lq-nets"}) {
    const auto network = zoo::make_model("resnet20", {.initialize = false});
    quantize_network(
        *network,
        {.weight_quantizer = name, .activation_quantizer = name, .weight_bits = 1, .activation_bits = 1});
    for (const char* path : {"conv1", "fc", "layer1.0.conv1"}) {
      const auto layer = std::dynamic_pointer_cast<QuantizedLayer>(network->child(path));
      ASSERT_NE(layer, nullptr);
      const bool edge = std::string(path) != "layer1.0.conv1";
      EXPECT_EQ(layer->weight_quantizer()->bits(), edge ? 32 : 1) << name << " " << path;
      EXPECT_EQ(layer->input_quantizer() == nullptr, edge) << name << " " << path;
    }
  }
}

}  // namespace
}  // namespace qtrain::quant
