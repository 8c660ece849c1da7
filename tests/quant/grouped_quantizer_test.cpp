// Groups of quantizers, and how layers and options go with them.
#include "quant/grouped_quantizer.h"

#include <gtest/gtest.h>

#include "engine/core/error.h"
#include "quant/quantized_layers.h"
#include "tests/quant/halves.h"

namespace qtrain::quant {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

// --- groups
// ---------------------------------------------------------------------------------------------------------------

TEST(Groups, AreResolved) {
  const auto groups = [](Role role, const Shape& shape, std::int64_t asked, std::int64_t usual = 0) {
    return resolve_groups(asked, {.role = role, .shape = shape}, usual);
  };
  const Shape conv{8, 6, 3, 3};
  EXPECT_EQ(groups(Role::weight, conv, 0), 8);     // output channels
  EXPECT_EQ(groups(Role::weight, conv, 0, 1), 1);  // another usual number
  EXPECT_EQ(groups(Role::weight, conv, 1), 1);
  EXPECT_EQ(groups(Role::weight, conv, 12), 12);  // through output channels
  EXPECT_EQ(groups(Role::weight, conv, 48), 48);  // each kernel
  EXPECT_EQ(groups(Role::weight, conv, 5), 8);    // doesn't divide 48
  EXPECT_EQ(groups(Role::weight, conv, 5, 2), 2);
  EXPECT_EQ(groups(Role::weight, conv, 96), 8);  // more than there are kernels
  EXPECT_EQ(groups(Role::weight, conv, -6), 8);  // 6 kernels each
  EXPECT_EQ(groups(Role::weight, conv, -1), 48);
  EXPECT_EQ(groups(Role::weight, conv, -48), 1);
  EXPECT_EQ(groups(Role::weight, conv, -49), 8);
  EXPECT_EQ(groups(Role::weight, {10, 20}, 0), 1);  // linear
  EXPECT_EQ(groups(Role::weight, {10, 20}, 5), 5);  // of rows
  EXPECT_EQ(groups(Role::weight, {10, 20}, -2), 5);
  EXPECT_EQ(groups(Role::weight, {1, 1, 10, 20}, 0), 1);
  for (const Role role : {Role::activation, Role::output}) {
    EXPECT_EQ(groups(role, {1, 12, 1, 1}, 0), 1);
    EXPECT_EQ(groups(role, {1, 12, 1, 1}, 12), 12);
    EXPECT_EQ(groups(role, {1, 12, 1, 1}, -4), 3);
    EXPECT_EQ(groups(role, {1, 12, 1, 1}, 5), 1);
    EXPECT_EQ(groups(role, {1, 12}, 6), 6);
  }
  EXPECT_EQ(groups(Role::bias, {12}, 0), 1);
  EXPECT_EQ(groups(Role::bias, {12}, 12), 12);
  EXPECT_EQ(groups(Role::weight, {1, 1, 1, 1}, 7), 1);  // unknown
}

TEST(Groups, ShapeTheParameters) {
  EXPECT_EQ(parameter_shape(Role::weight, 6), (Shape{6, 1, 1, 1}));
  EXPECT_EQ(parameter_shape(Role::weight, 1), (Shape{1, 1, 1, 1}));
  EXPECT_EQ(parameter_shape(Role::activation, 1), (Shape{1}));
  EXPECT_EQ(parameter_shape(Role::activation, 3), (Shape{1, 3, 1, 1}));
  EXPECT_EQ(parameter_shape(Role::output, 3), (Shape{1, 3, 1, 1}));
}

TEST(Groups, ATensorThatDoesntDivideIsRefused) {
  Halves quantizer(spec_of(Role::activation, {1, 6, 1, 1}, {{"groups", "3"}, {"stable", "1"}}));
  EXPECT_NO_THROW(quantizer.forward(normal({2, 6, 4, 4}, 1)));
  EXPECT_THROW(quantizer.forward(normal({2, 7, 4, 4}, 1)), ShapeError);
  EXPECT_THROW(quantizer.forward(normal({6}, 1)), ShapeError);
  EXPECT_THROW(quantizer.forward(Tensor::empty({0, 6, 4, 4})), ShapeError);
}

// Which elements belong to a group shows in gamma's product: the weight's elements in [O, I, kh, kw] order
// are cut into equal runs, also where those cut through output channels.
class RowMajorGroups : public testing::TestWithParam<std::int64_t> {};

TEST_P(RowMajorGroups, AreRunsOfTheFlattenedWeight) {
  const auto groups = static_cast<std::size_t>(GetParam());
  const Shape shape{4, 6, 3, 2};
  const auto quantizer = weight_halves(shape, {{"groups", std::to_string(groups)}, {"gamma", "true"}});
  const Tensor gamma = parameter(*quantizer, "gamma");
  ASSERT_EQ(gamma.shape(), (Shape{GetParam(), 1, 1, 1}));
  const Values gammas = normal_values(GetParam(), 3);
  gamma.copy_from(Tensor::from_values(gamma.shape(), gammas));
  const Tensor x = normal(shape, 1);
  const Tensor g = normal(shape, 2);
  const Result result = run(*quantizer, x, g);
  Values y;
  Values grad_x;
  std::vector<double> grad_gamma(groups);
  const std::size_t size = static_cast<std::size_t>(x.numel()) / groups;
  for (std::size_t i = 0; i < g.values().size(); ++i) {
    y.push_back(halves(static_cast<double>(x.values()[i])) * gammas[i / size]);
    grad_x.push_back(g.values()[i] * gammas[i / size]);
    grad_gamma[i / size] += static_cast<double>(g.values()[i] * halves(static_cast<double>(x.values()[i])));
  }
  EXPECT_EQ(result.y, y);
  EXPECT_EQ(result.grad_x, grad_x);
  expect_near(gamma.grad().values(), Values(grad_gamma.begin(), grad_gamma.end()), 1e-5F, "gamma");
}

INSTANTIATE_TEST_SUITE_P(Counts, RowMajorGroups, testing::Values(1, 2, 3, 4, 6, 8, 12, 24));

// --- layers
// ------------------------------------------------------------------------------------------------------------------

Tensor learned(const Shape& shape, std::uint64_t seed) {
  return normal(shape, seed).set_requires_grad(true);
}

// A 1x1 convolution with weight 1 and one pixel of padding: what stands in the border is what it was padded
// with.
Values padded(const std::map<std::string, std::string>& options, float offset) {
  const Conv2d conv(Tensor::full({1, 1, 1, 1}, 1).set_requires_grad(true), Tensor(),
                    {.pad_begin = {1, 1}, .pad_end = {1, 1}});
  const auto input = std::make_shared<Halves>(spec_of(Role::activation, {1, 1, 1, 1}, options), offset);
  EXPECT_EQ(input->pads_first(), offset != 0 && options.empty());
  QuantizedConv2d layer(conv, {.weight = nullptr, .input = input});
  return layer.forward(Tensor::full({1, 1, 1, 1}, 0.9F)).values();
}

TEST(Padding, IsQuantizedWhereZeroIsNotAFixedPoint) {
  EXPECT_EQ(padded({}, 0.25F), (Values{.25F, .25F, .25F, .25F, 1.25F, .25F, .25F, .25F, .25F}));
}

TEST(Padding, ComesAfterTheQuantizerIfAsked) {
  EXPECT_EQ(padded({{"padding_after_quant", "true"}}, 0.25F), (Values{0, 0, 0, 0, 1.25F, 0, 0, 0, 0}));
}

TEST(Padding, OfZerosIsTheSameWhereZeroStaysZero) {
  EXPECT_EQ(padded({}, 0), (Values{0, 0, 0, 0, 1, 0, 0, 0, 0}));
}

TEST(Layers, QuantizeBiasAndOutput) {
  const Tensor w = learned({3, 2, 3, 3}, 1);
  const Tensor b = learned({3}, 2);
  const ConvolutionGeometry geometry{.pad_begin = {1, 1}, .pad_end = {1, 1}};
  const Conv2d conv(w, b, geometry);
  const auto role = [](Role r, const Shape& shape) {
    return std::make_shared<Halves>(spec_of(r, shape, {}));
  };
  QuantizedConv2d layer(conv, {.weight = nullptr,
                               .input = nullptr,
                               .bias = role(Role::bias, {3}),
                               .output = role(Role::output, {1, 3, 1, 1})});
  Tensor rounded_bias = Tensor::from_values(
      {3}, Values{halves(static_cast<double>(b.values()[0])), halves(static_cast<double>(b.values()[1])),
                  halves(static_cast<double>(b.values()[2]))});
  Conv2d plain(w, rounded_bias, geometry);
  const Tensor x = normal({2, 2, 5, 5}, 3);
  Values expected = plain.forward(x).values();
  for (float& v : expected) v = halves(static_cast<double>(v));
  const Tensor y = layer.forward(x);
  EXPECT_EQ(y.values(), expected);
  Tape::backward(y, normal(y.shape(), 4));
  EXPECT_TRUE(w.grad().defined());
  EXPECT_TRUE(b.grad().defined());
  std::vector<std::string> names;
  for (const NamedTensor& t : layer.named_parameters()) names.push_back(t.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"weight", "bias", "bias_quantizer.clip", "output_quantizer.clip"}));
}

TEST(Layers, WithoutABiasNeedNoBiasQuantizer) {
  const Conv2d conv(learned({3, 2, 1, 1}, 1), Tensor(), {});
  QuantizedConv2d layer(
      conv,
      {.weight = nullptr, .input = nullptr, .bias = std::make_shared<Halves>(spec_of(Role::bias, {3}, {}))});
  EXPECT_EQ(layer.named_parameters().size(), 1U);
  EXPECT_EQ(layer.forward(normal({1, 2, 4, 4}, 1)).shape(), (Shape{1, 3, 4, 4}));
}

TEST(Layers, LinearOnesQuantizeTheBiasAndNotTheOutput) {
  const Linear linear(learned({3, 4}, 1), learned({3}, 2));
  const auto role = [](Role r, const Shape& shape) {
    return std::make_shared<Halves>(spec_of(r, shape, {}));
  };
  QuantizedLinear layer(linear, {.weight = nullptr,
                                 .input = nullptr,
                                 .bias = role(Role::bias, {3}),
                                 .output = role(Role::output, {1, 3})});
  const Values y = layer.forward(Tensor::zeros({1, 4})).values();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(y[i], halves(static_cast<double>(linear.bias().values()[i])));
  EXPECT_EQ(layer.named_parameters().size(), 3U);
}

// --- options
// -----------------------------------------------------------------------------------------------------------------

bool declares(const std::vector<OptionSpec>& specs, const std::string& name) {
  return std::ranges::find(specs, name, &OptionSpec::name) != specs.end();
}

TEST(RuleOptions, FollowTheRole) {
  const auto weight = rule_options(Role::weight);
  const auto activation = rule_options(Role::activation);
  const auto output = rule_options(Role::output);
  EXPECT_TRUE(declares(weight, "adaptive") && declares(weight, "restore") && declares(weight, "gamma"));
  EXPECT_FALSE(declares(weight, "half_range") || declares(weight, "padding_after_quant"));
  EXPECT_TRUE(declares(activation, "half_range") && declares(activation, "padding_after_quant"));
  EXPECT_FALSE(declares(activation, "adaptive") || declares(activation, "gamma"));
  EXPECT_TRUE(declares(output, "half_range") && declares(output, "gamma"));
  EXPECT_FALSE(declares(output, "adaptive") || declares(output, "padding_after_quant"));
  EXPECT_FALSE(declares(rule_options(Role::weight, {"gamma", "stable"}), "stable"));
  const auto own = with_rule_options({{"own", OptionType::real, "1", "", {}}}, Role::weight, {"levels"});
  EXPECT_EQ(own.front().name, "own");
  EXPECT_FALSE(declares(own, "levels"));
  EXPECT_TRUE(Options("halves", activation, {}).flag("half_range"));
  EXPECT_FALSE(Options("halves", output, {}).flag("half_range"));
}

TEST(RuleOptions, ThatMakeNoSenseAreRefused) {
  for (const auto& [name, value] : std::map<std::string, std::string>{{"stable", "-1"},
                                                                      {"prox", "1.5"},
                                                                      {"prox_epochs", "-2"},
                                                                      {"prox_milestones", "-2"},
                                                                      {"levels", "1"},
                                                                      {"quant_loss", "l3"},
                                                                      {"adaptive", "mean"}}) {
    EXPECT_THROW(weight_halves({4, 50}, {{name, value}}), ValueError) << name;
  }
}

TEST(GroupedQuantizer, AtThirtyTwoBitsReturnsItsInput) {
  const auto quantizer =
      weight_halves({4, 50}, {{"adaptive", "var-mean"}, {"gamma", "true"}, {"quant_loss", "l1"}});
  quantizer->set_bits(float_bits);
  const Tensor x = normal({4, 50}, 1).set_requires_grad(true);
  EXPECT_EQ(quantizer->forward(x).values(), x.values());
  EXPECT_FALSE(quantizer->take_loss().defined());
}

TEST(GroupedQuantizer, DescribesItself) {
  EXPECT_EQ(weight_halves({4, 50}, {})->describe(), "halves, 4 bits");
  EXPECT_EQ(weight_halves({4, 5, 3, 3}, {{"levels", "7"}})->describe(), "halves, 7 levels, 4 groups");
  EXPECT_EQ(weight_halves({4, 50}, {})->kind(), "Halves");
}

}  // namespace
}  // namespace qtrain::quant
