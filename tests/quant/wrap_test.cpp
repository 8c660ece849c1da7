// Quantized networks made of float ones: which layers, with what quantizers, under what names.
#include "quant/wrap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/core/error.h"
#include "engine/ops/loss.h"
#include "layers/activation.h"
#include "layers/init.h"
#include "layers/normalization.h"
#include "layers/pooling.h"
#include "layers/sequential.h"
#include "quant/quantized_layers.h"

namespace qtrain::quant {
namespace {

// conv 3x3, batch norm, a block of a depthwise and a 1x1 convolution, pooling, linear.
std::shared_ptr<Sequential> make_network() {
  const auto conv = [](std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t groups) {
    return std::make_shared<Conv2d>(Conv2dOptions{.in_channels = in,
                                                  .out_channels = out,
                                                  .kernel = square(kernel),
                                                  .padding = square(kernel / 2),
                                                  .groups = groups,
                                                  .bias = false});
  };
  const std::shared_ptr<Module> block(new Sequential{conv(4, 4, 3, 4), conv(4, 6, 1, 1)});
  auto network = std::make_shared<Sequential>();
  network->append(conv(3, 4, 3, 1)).append(std::make_shared<BatchNorm2d>(4)).append(block);
  network->append(std::make_shared<GlobalAvgPool2d>()).append(std::make_shared<Flatten>());
  network->append(std::make_shared<Linear>(6, 5));
  reset_parameters(*network, 1);
  return network;
}

const QuantizedLayer& layer(const Module& network, const std::string& path) {
  return dynamic_cast<const QuantizedLayer&>(*network.child(path));
}

std::vector<std::string> names(const NamedTensors& tensors) {
  std::vector<std::string> all;
  for (const NamedTensor& t : tensors) all.push_back(t.name);
  return all;
}

Tensor images() {
  std::vector<float> values(216);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  return Tensor::from_values({2, 3, 6, 6}, values);
}

TEST(Wrap, ReplacesEveryConvolutionAndLinearLayer) {
  const auto network = make_network();
  const Tensor weight = dynamic_cast<Conv2d&>(*network->child("2.0")).weight();
  const std::vector<std::string> expected = {"0", "2.0", "2.1", "5"};
  EXPECT_EQ(quantize_network(*network, {}), expected);
  for (const std::string& path : expected)
    EXPECT_NE(dynamic_cast<QuantizedLayer*>(&*network->child(path)), nullptr) << path;
  const auto& depthwise = dynamic_cast<Conv2d&>(*network->child("2.0"));
  EXPECT_EQ(depthwise.geometry().groups, 4);
  EXPECT_TRUE(depthwise.weight().shares_storage_with(weight));
  EXPECT_EQ(network->forward(images()).shape(), (Shape{2, 5}));
}

TEST(Wrap, NamesParametersByLayerAndQuantizer) {
  const auto network = make_network();
  quantize_network(*network, {});
  const std::vector<std::string> expected = {"0.weight",
                                             "1.weight",
                                             "1.bias",
                                             "2.0.weight",
                                             "2.0.input_quantizer.alpha",
                                             "2.1.weight",
                                             "2.1.input_quantizer.alpha",
                                             "5.weight",
                                             "5.bias",
                                             "5.input_quantizer.alpha"};
  EXPECT_EQ(names(network->named_parameters()), expected);
}

// A quantizer with a learned step, for the names of what weight quantizers learn.
class LearnedStep final : public Quantizer {
 public:
  explicit LearnedStep(int bits) : Quantizer(bits), step_(add_parameter("step", make_parameter({1}))) {}
  std::string kind() const override { return "LearnedStep"; }
  Tensor forward(const Tensor& x) override { return x; }

 private:
  const Tensor& step_;
};

TEST(Wrap, NamesWhatWeightQuantizersLearn) {
  register_quantizer({.name = "learned-step", .summary = "test", .make = [](const QuantizerSpec& spec) {
                        return std::make_shared<LearnedStep>(spec.bits);
                      }});
  const auto network = make_network();
  quantize_network(*network, {.weight_quantizer = "learned-step", .activation_quantizer = "none"});
  const std::vector<std::string> found = names(network->named_parameters());
  for (const char* name : {"0.weight_quantizer.step", "2.1.weight_quantizer.step", "5.weight_quantizer.step"})
    EXPECT_NE(std::find(found.begin(), found.end(), name), found.end()) << name;
}

struct Bits {
  int weight;
  int input;  // 0: not quantized
  bool operator==(const Bits&) const = default;
};

Bits bits_of(const Module& network, const std::string& path) {
  const QuantizedLayer& l = layer(network, path);
  return {l.weight_quantizer()->bits(), l.input_quantizer() == nullptr ? 0 : l.input_quantizer()->bits()};
}

TEST(Wrap, FollowsTheQuantizersRuleForFirstAndLast) {
  const auto network = make_network();
  quantize_network(*network, {.weight_bits = 4, .activation_bits = 3});
  EXPECT_EQ(bits_of(*network, "0"), (Bits{8, 0}));
  EXPECT_EQ(bits_of(*network, "2.0"), (Bits{4, 3}));
  EXPECT_EQ(bits_of(*network, "2.1"), (Bits{4, 3}));
  EXPECT_EQ(bits_of(*network, "5"), (Bits{8, 3}));
}

TEST(Wrap, FirstAndLastCanBeToldOtherwise) {
  const auto wrapped = [](const EdgeOptions& first, const EdgeOptions& last) {
    auto network = make_network();
    quantize_network(*network, {.weight_bits = 4, .activation_bits = 3, .first = first, .last = last});
    return network;
  };
  const auto full = wrapped({EdgeTreatment::full}, {EdgeTreatment::weight_only});
  EXPECT_EQ(bits_of(*full, "0"), (Bits{4, 3}));
  EXPECT_EQ(bits_of(*full, "5"), (Bits{4, 0}));
  const auto left = wrapped({EdgeTreatment::none}, {EdgeTreatment::none});
  EXPECT_EQ(dynamic_cast<QuantizedLayer*>(&*left->child("0")), nullptr);
  EXPECT_EQ(dynamic_cast<QuantizedLayer*>(&*left->child("5")), nullptr);
  const auto given = wrapped({EdgeTreatment::automatic, 5}, {EdgeTreatment::automatic, 2});
  EXPECT_EQ(bits_of(*given, "0"), (Bits{5, 0}));
  EXPECT_EQ(bits_of(*given, "5"), (Bits{2, 3}));
  EXPECT_EQ(parse_edge_treatment("weight-only"), EdgeTreatment::weight_only);
  EXPECT_THROW(parse_edge_treatment("half"), ValueError);
}

// dsq's rule: everything but the last layer.
TEST(Wrap, ARuleCanLeaveALayerFloat) {
  const auto wrapped = [](const std::string& activation, const EdgeOptions& last) {
    auto network = make_network();
    quantize_network(*network, {.weight_quantizer = "dsq",
                                .activation_quantizer = activation,
                                .weight_bits = 4,
                                .activation_bits = 3,
                                .last = last});
    return network;
  };
  const auto by_rule = wrapped("dsq", {});
  EXPECT_EQ(bits_of(*by_rule, "0"), (Bits{4, 3}));
  EXPECT_EQ(dynamic_cast<QuantizedLayer*>(&*by_rule->child("5")), nullptr);
  const auto mixed = wrapped("sat", {});  // each side by its own rule
  EXPECT_EQ(layer(*mixed, "5").weight_quantizer(), nullptr);
  EXPECT_NE(layer(*mixed, "5").input_quantizer(), nullptr);
  EXPECT_EQ(bits_of(*wrapped("dsq", {EdgeTreatment::automatic, 8}), "5"), (Bits{8, 0}));
  EXPECT_EQ(bits_of(*wrapped("dsq", {EdgeTreatment::full}), "5"), (Bits{4, 3}));
}

TEST(Wrap, OneLayerIsTheFirst) {
  Sequential network{std::make_shared<Linear>(3, 2)};
  quantize_network(network, {.weight_bits = 2});
  EXPECT_EQ(bits_of(network, "0"), (Bits{8, 0}));
}

TEST(Wrap, EitherSideCanStayFloat) {
  const auto weights = make_network();
  quantize_network(*weights, {.activation_quantizer = "none"});
  EXPECT_EQ(layer(*weights, "2.0").input_quantizer(), nullptr);
  EXPECT_NE(layer(*weights, "2.0").weight_quantizer(), nullptr);
  const auto inputs = make_network();
  quantize_network(*inputs, {.weight_quantizer = "none"});
  EXPECT_EQ(layer(*inputs, "2.0").weight_quantizer(), nullptr);
  EXPECT_NE(layer(*inputs, "2.0").input_quantizer(), nullptr);
  const auto neither = make_network();
  const Tensor before = neither->forward(images());
  EXPECT_TRUE(
      quantize_network(*neither, {.weight_quantizer = "none", .activation_quantizer = "none"}).empty());
  EXPECT_EQ(neither->forward(images()).values(), before.values());
}

TEST(Wrap, ZeroBitsSkipALayer) {
  Sequential network{std::make_shared<Linear>(3, 3), std::make_shared<Linear>(3, 3),
                     std::make_shared<Linear>(3, 2)};
  reset_parameters(network, 1);
  quantize_network(network, {.weight_bits = 0});
  EXPECT_EQ(network.child("1")->kind(), "SkippedLayer");
  EXPECT_EQ(bits_of(network, "0").weight, 8);
}

TEST(Wrap, NothingChangesWhenSomethingIsWrong) {
  const auto network = make_network();
  const std::vector<std::string> before = names(network->state_dict());
  const auto refuse = [&](const WrapOptions& options) {
    EXPECT_THROW(quantize_network(*network, options), ValueError);
    EXPECT_EQ(names(network->state_dict()), before);
    EXPECT_EQ(network->child("0")->kind(), "Conv2d");
  };
  refuse({.weight_quantizer = "saturn"});
  refuse({.activation_quantizer = "saturn"});
  refuse({.weight_bits = 33});
  refuse({.activation_bits = -1});
  refuse({.weight_options = {{"schem", "original"}}});
  refuse({.activation_options = {{"alpha", "eight"}}});
  Sequential empty{std::make_shared<ReLU>()};
  EXPECT_THROW(quantize_network(empty, {}), ValueError);
}

TEST(Wrap, WrappingTwiceLeavesQuantizedLayersAlone) {
  const auto network = make_network();
  quantize_network(*network, {});
  EXPECT_THROW(quantize_network(*network, {}), ValueError);  // nothing is left to quantize
}

TEST(Wrap, TakesOverTheTrainingMode) {
  const auto network = make_network();
  network->evaluate();
  quantize_network(*network, {});
  EXPECT_FALSE(layer(*network, "5").weight_quantizer()->is_training());
  network->train();
  EXPECT_TRUE(layer(*network, "5").weight_quantizer()->is_training());
}

TEST(Wrap, EveryParameterGetsAGradient) {
  const auto network = make_network();
  quantize_network(*network, {});
  const std::vector<std::int64_t> labels = {1, 3};
  Tape::backward(
      softmax_cross_entropy(network->forward(images()), Tensor::from_values<std::int64_t>({2}, labels)));
  for (const NamedTensor& p : network->named_parameters()) EXPECT_TRUE(p.tensor.grad().defined()) << p.name;
}

TEST(ModelSize, CountsWeightsAtTheirBits) {
  const auto network = make_network();
  const ModelSize plain = model_size(*network);
  const std::int64_t weights[] = {108, 36, 24, 30};
  const std::int64_t others = 16 + 5;  // batch norm, bias
  EXPECT_EQ(plain.float_bytes, 4 * (weights[0] + weights[1] + weights[2] + weights[3] + others));
  EXPECT_EQ(plain.quantized_bytes, plain.float_bytes);
  quantize_network(*network, {.weight_bits = 3, .activation_bits = 3});
  const ModelSize quantized = model_size(*network);
  const std::int64_t alphas = 3;
  EXPECT_EQ(quantized.float_bytes, plain.float_bytes + 4 * alphas);
  // 8 bits for the first and the last; 36 * 3 bits are 13.5 bytes, 24 * 3 are 9.
  EXPECT_EQ(quantized.quantized_bytes, weights[0] + 14 + 9 + weights[3] + 4 * (others + alphas));
}

TEST(ModelSize, ThirtyTwoBitsAreFloat) {
  const auto network = make_network();
  quantize_network(*network, {.weight_bits = 32, .activation_bits = 4});
  const ModelSize size = model_size(*network);
  EXPECT_EQ(size.quantized_bytes, size.float_bytes);
}

}  // namespace
}  // namespace qtrain::quant
