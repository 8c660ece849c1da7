// The rules around a quantizer's own math, tried with a quantizer whose math is plain: multiples of 1/2 with
// the gradient passed on.
#include "quant/grouped_quantizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "quant/fake_quantize.h"
#include "quant/quantized_layers.h"

namespace qtrain::quant {
namespace {

using Values = std::vector<float>;

// --- the quantizer
// ---------------------------------------------------------------------------------------------------

struct HalvesMath {
  static constexpr bool straight_through = true;
  float offset = 0;  // makes a quantizer to which zeros matter
  float forward(float x) const { return round_half_to_even(2 * x) / 2 + offset; }
};

class Halves final : public GroupedQuantizer {
 public:
  explicit Halves(const QuantizerSpec& spec, float offset = 0)
      : GroupedQuantizer("halves", spec), offset_(offset), clip_(add_group_parameter("clip", 1)) {}

  std::vector<std::int64_t> warm_ups;

 protected:
  Tensor quantize(const Tensor& x, const Grouping& grouping) override {
    return fake_quantize<0>(op(), x, HalvesMath{offset_}, {}, grouping);
  }
  void warm_up(const Tensor& x, const Grouping& grouping, std::int64_t t) override {
    warm_ups.push_back(t);
    follow_maximum(clip_, x, grouping, t);
  }
  bool ignores_zeros() const override { return offset_ == 0; }

 private:
  float offset_;
  const Tensor& clip_;
};

QuantizerSpec spec_of(Role role, const Shape& shape, const std::map<std::string, std::string>& options) {
  return {.role = role,
          .bits = 4,
          .layer = shape.rank() == 4 ? LayerKind::convolution : LayerKind::linear,
          .options = Options("halves", rule_options(role), options),
          .shape = shape};
}

std::shared_ptr<Halves> weight_halves(const Shape& shape, const std::map<std::string, std::string>& options,
                                      float offset = 0) {
  return std::make_shared<Halves>(spec_of(Role::weight, shape, options), offset);
}

// --- tools
// -------------------------------------------------------------------------------------------------------------

Values normal_values(std::int64_t count, std::uint64_t seed, double deviation = 1, double mean = 0) {
  RandomStream random(seed, RandomPurpose::user);
  Values values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>(mean + deviation * random.normal());
  return values;
}

Tensor normal(const Shape& shape, std::uint64_t seed, double deviation = 1, double mean = 0) {
  return Tensor::from_values(shape, normal_values(shape.numel(), seed, deviation, mean));
}

float halves(double x) {
  return round_half_to_even(2 * static_cast<float>(x)) / 2;
}

void expect_near(const Values& got, const Values& want, float tolerance, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << what << " " << i;
}

struct Result {
  Values y;
  Values grad_x;
};

Result run(Quantizer& quantizer, const Tensor& values, const Tensor& g) {
  const Tensor x = values.clone().set_requires_grad(true);
  const Tensor y = quantizer.forward(x);
  Tape::backward(y, g);
  return {y.values(), x.grad().values()};
}

Tensor parameter(Module& module, const std::string& name) {
  for (const NamedTensor& t : module.state_dict())
    if (t.name == name) return t.tensor;
  ADD_FAILURE() << "no " << name;
  return {};
}

std::int64_t counted(Module& module) {
  return *parameter(module, "forwards").data<std::int64_t>();
}

// Mean and standard deviation of each run of equal length, in double.
struct Moments {
  double mean = 0;
  double std = 0;
};
std::vector<Moments> moments(const Values& x, std::size_t groups) {
  const std::size_t size = x.size() / groups;
  std::vector<Moments> result(groups);
  for (std::size_t i = 0; i < x.size(); ++i)
    result[i / size].mean += static_cast<double>(x[i]) / static_cast<double>(size);
  for (std::size_t i = 0; i < x.size(); ++i) {
    Moments& m = result[i / size];
    m.std += std::pow(static_cast<double>(x[i]) - m.mean, 2) / static_cast<double>(size - 1);
  }
  for (Moments& m : result) m.std = std::sqrt(m.std);
  return result;
}

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

// --- normalization, gamma and restore
// ------------------------------------------------------------------------------------

struct Norm {
  std::string groups;
  std::string norm_groups;
  std::size_t runs;  // that are normalized
};

class Normalization : public testing::TestWithParam<Norm> {};

TEST_P(Normalization, MapsEachGroupToMeanZeroAndDeviationOne) {
  const Shape shape{4, 6, 3, 2};
  const auto quantizer = weight_halves(
      shape,
      {{"adaptive", "var-mean"}, {"groups", GetParam().groups}, {"norm_groups", GetParam().norm_groups}});
  const Tensor x = normal(shape, 1, 0.2, 0.1);
  const Tensor g = normal(shape, 2);
  const Result result = run(*quantizer, x, g);
  const Values before = x.values();
  const auto of_run = moments(before, GetParam().runs);
  const std::size_t size = before.size() / GetParam().runs;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Moments& m = of_run[i / size];
    const double normalized = (static_cast<double>(before[i]) - m.mean) / m.std;
    if (std::abs(std::abs(std::remainder(2 * normalized, 1)) - 0.5) > 1e-4) {
      EXPECT_EQ(result.y[i], halves(normalized)) << i;
    }
    EXPECT_NEAR(static_cast<double>(result.grad_x[i]), static_cast<double>(g.values()[i]) / m.std, 1e-4) << i;
  }
}

TEST_P(Normalization, IsUndoneByRestoreAfterGamma) {
  const Shape shape{4, 6, 3, 2};
  const auto quantizer = weight_halves(shape, {{"adaptive", "var-mean"},
                                               {"restore", "true"},
                                               {"gamma", "true"},
                                               {"groups", GetParam().groups},
                                               {"norm_groups", GetParam().norm_groups}});
  const Tensor gamma = parameter(*quantizer, "gamma");
  const Values gammas = normal_values(gamma.numel(), 3);
  gamma.copy_from(Tensor::from_values(gamma.shape(), gammas));
  const Tensor x = normal(shape, 1, 0.2, 0.1);
  const Tensor g = normal(shape, 2);
  const Result result = run(*quantizer, x, g);
  const Values before = x.values();
  const auto of_run = moments(before, GetParam().runs);
  const std::size_t size = before.size() / GetParam().runs;
  const std::size_t gamma_size = before.size() / gammas.size();
  std::vector<double> grad_gamma(gammas.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Moments& m = of_run[i / size];
    const auto gain = static_cast<double>(gammas[i / gamma_size]);
    const auto q = static_cast<double>(halves((static_cast<double>(before[i]) - m.mean) / m.std));
    EXPECT_NEAR(static_cast<double>(result.y[i]), m.std * gain * q + m.mean, 1e-5) << i;
    EXPECT_NEAR(static_cast<double>(result.grad_x[i]), static_cast<double>(g.values()[i]) * gain, 1e-5) << i;
    grad_gamma[i / gamma_size] += static_cast<double>(g.values()[i]) * m.std * q;
  }
  expect_near(gamma.grad().values(), Values(grad_gamma.begin(), grad_gamma.end()), 1e-4F, "gamma");
}

INSTANTIATE_TEST_SUITE_P(Groups, Normalization,
                         testing::Values(Norm{"0", "0", 4}, Norm{"1", "0", 1}, Norm{"4", "1", 1},
                                         Norm{"1", "4", 4}, Norm{"6", "4", 4}, Norm{"6", "0", 6},
                                         Norm{"4", "6", 6}, Norm{"3", "2", 2}, Norm{"2", "7", 2},
                                         Norm{"1", "-2", 12}),
                         [](const auto& tested) {
                           std::string name = tested.param.groups + "_of_" + tested.param.norm_groups;
                           std::ranges::replace(name, '-', 'm');
                           return name;
                         });

TEST(Normalization, OfAGroupWithoutSpreadIsZero) {
  for (const float value : {0.0F, 0.3F, -1e-20F, 7e8F}) {
    const auto quantizer = weight_halves({2, 1001, 1, 1}, {{"adaptive", "var-mean"}, {"restore", "true"}});
    Values x(2002, value);
    std::ranges::copy(normal_values(1001, 1), x.begin() + 1001);
    const Result result =
        run(*quantizer, Tensor::from_values({2, 1001, 1, 1}, x), normal({2, 1001, 1, 1}, 2));
    for (std::size_t i = 0; i < 1001; ++i) {
      ASSERT_NEAR(result.y[i], value, 1e-5F * std::abs(value)) << value;  // 0 std + mean
      ASSERT_EQ(result.grad_x[i], 0) << value;
      ASSERT_NE(result.grad_x[1001 + i], 0) << value;
    }
  }
  const auto one_element = weight_halves({3, 1, 1, 1}, {{"adaptive", "var-mean"}});
  EXPECT_EQ(run(*one_element, normal({3, 1, 1, 1}, 1), normal({3, 1, 1, 1}, 2)).y, Values(3, 0));
}

TEST(Normalization, SmallAndLargeWeightsAreAlike) {
  const Tensor x = normal({4, 50}, 1);
  const auto levels = [&](float scale) {
    Values values = x.values();
    for (float& v : values) v *= scale;
    return weight_halves({4, 50}, {{"adaptive", "var-mean"}})->forward(Tensor::from_values({4, 50}, values));
  };
  EXPECT_EQ(levels(0x1p-40F).values(), levels(1).values());
  EXPECT_EQ(levels(0x1p40F).values(), levels(1).values());
}

TEST(Restore, WithoutNormalizationDoesNothing) {
  const Tensor x = normal({4, 50}, 1);
  EXPECT_EQ(weight_halves({4, 50}, {{"restore", "true"}})->forward(x).values(),
            weight_halves({4, 50}, {})->forward(x).values());
}

// --- warm-up
// -----------------------------------------------------------------------------------------------------------------

TEST(WarmUp, CountsTrainingForwardsAndFollowsTheMaximumOfEachGroup) {
  Halves quantizer(
      spec_of(Role::activation, {1, 4, 1, 1}, {{"stable", "3"}, {"groups", "2"}, {"correlate", "0.5"}}));
  const Tensor clip = parameter(quantizer, "clip");
  std::vector<double> expected{1, 1};
  for (int t = 1; t <= 3; ++t) {
    quantizer.evaluate();
    const Tensor seen = normal({2, 4, 3, 3}, 50);
    EXPECT_EQ(quantizer.forward(seen).values(), seen.values()) << "evaluated before forward " << t;
    EXPECT_EQ(counted(quantizer), t - 1);
    quantizer.train();
    const Tensor x = normal({2, 4, 3, 3}, static_cast<std::uint64_t>(t));
    const Tensor g = normal({2, 4, 3, 3}, 9);
    const Tensor leaf = x.clone().set_requires_grad(true);
    EXPECT_EQ(quantizer.forward(leaf).values(), x.values());
    EXPECT_EQ(counted(quantizer), t);
    for (std::size_t group = 0; group < 2; ++group) {
      float most = 0;
      for (std::size_t i = 0; i < 72; ++i)
        if (i / 9 % 4 / 2 == group) most = std::max(most, std::abs(x.values()[i]));
      expected[group] = (0.5 * static_cast<double>(most) + (t - 1) * expected[group]) / t;
    }
    expect_near(clip.values(), Values(expected.begin(), expected.end()), 1e-6F, "clip");
  }
  EXPECT_EQ(quantizer.warm_ups, (std::vector<std::int64_t>{1, 2, 3}));
  const Values last = clip.values();
  const Tensor x = normal({2, 4, 3, 3}, 10);
  quantizer.evaluate();
  EXPECT_NE(quantizer.forward(x).values(), x.values());
  quantizer.train();
  EXPECT_NE(quantizer.forward(x).values(), x.values());
  EXPECT_EQ(clip.values(), last);
  EXPECT_EQ(counted(quantizer), 4);
}

TEST(WarmUp, GoesOnInARestoredQuantizer) {
  const QuantizerSpec spec = spec_of(Role::activation, {1, 4, 1, 1}, {{"stable", "3"}});
  Halves first(spec);
  const Tensor x = normal({2, 4, 3, 3}, 1);
  for (int t = 0; t < 2; ++t) first.forward(x);
  Halves second(spec);
  second.load_state_dict(first.state_dict());
  EXPECT_EQ(second.forward(x).values(), x.values());
  EXPECT_NE(second.forward(x).values(), x.values());
  EXPECT_EQ(second.warm_ups, (std::vector<std::int64_t>{3}));
}

TEST(WarmUp, OfNormalizedWeightsReturnsThemNormalized) {
  const auto quantizer =
      weight_halves({4, 50}, {{"stable", "1"}, {"adaptive", "var-mean"}, {"restore", "true"}});
  const Tensor x = normal({4, 50}, 1, 0.1, 3);
  const Result result = run(*quantizer, x, normal({4, 50}, 2));
  const Moments m = moments(result.y, 1)[0];
  EXPECT_NEAR(m.mean, 0, 1e-5);
  EXPECT_NEAR(m.std, 1, 1e-5);
}

TEST(WarmUp, WithoutItNothingIsCounted) {
  const auto quantizer = weight_halves({4, 50}, {});
  for (const NamedTensor& t : quantizer->named_buffers()) EXPECT_NE(t.name, "forwards");
  EXPECT_EQ(quantizer->forwards(), 0);
}

// --- prox
// --------------------------------------------------------------------------------------------------------------------

TEST(Prox, MixesInTheUnquantizedValueWhileTraining) {
  const auto quantizer = weight_halves({4, 50}, {{"prox", "0.25"}});
  const Tensor x = normal({4, 50}, 1);
  const Tensor g = normal({4, 50}, 2);
  const Result result = run(*quantizer, x, g);
  Values expected;
  for (const float v : x.values()) expected.push_back(0.25F * v + 0.75F * halves(static_cast<double>(v)));
  expect_near(result.y, expected, 1e-6F, "y");
  expect_near(result.grad_x, g.values(), 1e-6F, "gradient");
  quantizer->evaluate();
  EXPECT_EQ(quantizer->forward(x).values(), weight_halves({4, 50}, {})->forward(x).values());
}

TEST(Prox, FallsFromOneToZeroOverItsEpochs) {
  const auto quantizer = weight_halves({4, 50}, {{"prox_epochs", "4"}});
  const Tensor x = normal({4, 50}, 1);
  const double shares[] = {1, 0.75, 0.5, 0.25, 0, 0};
  for (std::int64_t epoch = 0; epoch < 6; ++epoch) {
    quantizer->start_epoch({.epoch = epoch});
    Values expected;
    const auto share = static_cast<float>(shares[epoch]);
    for (const float v : x.values())
      expected.push_back(share * v + (1 - share) * halves(static_cast<double>(v)));
    expect_near(quantizer->forward(x).values(), expected, 1e-6F, "y");
  }
  quantizer->start_epoch({.epoch = 1});  // as after a resume
  EXPECT_NEAR(quantizer->forward(Tensor::full({1, 1}, 0.6F)).item(), 0.75F * 0.6F + 0.25F * 0.5F, 1e-6F);
}

TEST(Prox, OrFallsWithTheMilestonesOfTheLearningRate) {
  const auto quantizer = weight_halves({4, 50}, {{"prox_milestones", "3"}});
  const float shares[] = {2.0F / 3, 1.0F / 3, 0, 0};
  for (std::int64_t passed = 0; passed < 4; ++passed) {
    quantizer->start_epoch({.epoch = 30 * passed, .milestones = passed});
    const float share = shares[passed];
    EXPECT_NEAR(quantizer->forward(Tensor::full({1, 1}, 0.6F)).item(), share * 0.6F + (1 - share) * 0.5F,
                1e-6F);
  }
  EXPECT_THROW(weight_halves({4, 50}, {{"prox_milestones", "3"}, {"prox_epochs", "4"}}), ValueError);
}

// --- the loss
// ----------------------------------------------------------------------------------------------------------------

TEST(Loss, IsHandedOverOnceAndOnlyAfterATrainingForward) {
  const auto quantizer =
      weight_halves({4, 50}, {{"quant_loss", "l2"}, {"quant_loss_alpha", "3"}, {"stable", "1"}});
  const Tensor x = normal({4, 50}, 1).set_requires_grad(true);
  quantizer->forward(x);
  EXPECT_FALSE(quantizer->take_loss().defined()) << "while warming up";
  quantizer->evaluate();
  quantizer->forward(x);
  EXPECT_FALSE(quantizer->take_loss().defined()) << "in evaluation";
  quantizer->train();
  {
    const NoGradGuard no_grad;
    quantizer->forward(x);
  }
  EXPECT_FALSE(quantizer->take_loss().defined()) << "without gradients";
  quantizer->forward(x);
  const Tensor loss = quantizer->take_loss();
  ASSERT_TRUE(loss.defined());
  EXPECT_FALSE(quantizer->take_loss().defined()) << "a second time";
  double expected = 0;
  for (const float v : x.values())
    expected += 3 * std::pow(static_cast<double>(v - halves(static_cast<double>(v))), 2) / 200;
  EXPECT_NEAR(static_cast<double>(loss.item()), expected, 1e-5);
  Tape::backward(loss);
  for (const float v : x.grad().values()) EXPECT_NEAR(v, 0, 1e-6F);  // what flows into y comes back to x
}

TEST(Loss, ComparesWithTheNormalizedWeight) {
  const auto quantizer =
      weight_halves({4, 50}, {{"quant_loss", "l1"}, {"adaptive", "var-mean"}, {"restore", "true"}});
  const Tensor x = normal({4, 50}, 1, 0.1, 3).set_requires_grad(true);
  quantizer->forward(x);
  const Moments m = moments(x.values(), 1)[0];
  double expected = 0;
  for (const float v : x.values()) {
    const double normalized = (static_cast<double>(v) - m.mean) / m.std;
    expected += std::abs(normalized - static_cast<double>(halves(normalized))) / 200;
  }
  EXPECT_NEAR(static_cast<double>(quantizer->take_loss().item()), expected, 1e-4);
}

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
