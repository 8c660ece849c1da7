// What the golden cases of lsq don't show: how the step starts and is kept, gradient factors below 2, general
// groups, refused combinations, extreme values.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

Tensor normal(const Shape& shape, std::uint64_t seed, double deviation = 1) {
  RandomStream random(seed, RandomPurpose::user);
  Values values(static_cast<std::size_t>(shape.numel()));
  for (float& v : values) v = static_cast<float>(deviation * random.normal());
  return Tensor::from_values(shape, values);
}

std::shared_ptr<Quantizer> lsq(Role role, int bits, const Texts& options, const Shape& shape = {1, 1, 1, 1}) {
  return make_quantizer("lsq", role, bits, shape.rank() == 4 ? LayerKind::convolution : LayerKind::linear,
                        options, shape);
}

std::shared_ptr<Quantizer> step(Role role, int bits, Texts options = {}, const Shape& shape = {1, 1, 1, 1}) {
  options["parametrization"] = "step";
  return lsq(role, bits, options, shape);
}

Tensor state(Module& module, const std::string& name) {
  for (const NamedTensor& t : module.state_dict())
    if (t.name == name) return t.tensor;
  ADD_FAILURE() << "no " << name;
  return {};
}

void set(Module& module, const std::string& name, const Values& values) {
  const Tensor t = state(module, name);
  t.copy_from(Tensor::from_values(t.shape(), values));
}

struct Result {
  Values y;
  Values grad_x;
  Values grad_parameter;
};

Result run(Quantizer& quantizer, const Tensor& values, const Tensor& g) {
  const Tensor x = values.clone().set_requires_grad(true);
  const Tensor p = quantizer.parameters()[0];
  p.set_grad({});
  const Tensor y = quantizer.forward(x);
  Tape::backward(y, g);
  return {y.values(), x.grad().values(), p.grad().defined() ? p.grad().values() : Values{}};
}

double mean_magnitude(const Values& x, std::size_t from, std::size_t to) {
  double sum = 0;
  for (std::size_t i = from; i < to; ++i) sum += std::abs(static_cast<double>(x[i]));
  return sum / static_cast<double>(to - from);
}

// --- the step's first value
// ------------------------------------------------------------------------------------------------

TEST(LsqStep, StartsFromTheFirstTrainingBatch) {
  const auto quantizer = step(Role::activation, 4);
  const Tensor first = normal({3, 4, 5, 5}, 1);
  const double expected = 2 * mean_magnitude(first.values(), 0, 300) / std::sqrt(15.0);
  EXPECT_EQ(state(*quantizer, "step").values(), Values{0});
  quantizer->forward(first);
  const Values started = state(*quantizer, "step").values();
  EXPECT_NEAR(static_cast<double>(started[0]), expected, 1e-6);
  quantizer->forward(normal({3, 4, 5, 5}, 2, 10));
  EXPECT_EQ(state(*quantizer, "step").values(), started);
}

TEST(LsqStep, StartsFromTheWeightsOfEachGroup) {
  const auto quantizer = step(Role::weight, 3, {{"groups", "6"}}, {4, 3, 2, 2});
  const Tensor w = normal({4, 3, 2, 2}, 1, 0.1);
  quantizer->forward(w);
  const Tensor s = state(*quantizer, "step");
  ASSERT_EQ(s.shape(), (Shape{6, 1, 1, 1}));
  for (std::size_t group = 0; group < 6; ++group)
    EXPECT_NEAR(static_cast<double>(s.values()[group]),
                2 * mean_magnitude(w.values(), 8 * group, 8 * group + 8) / std::sqrt(3.0), 1e-6);
}

TEST(LsqStep, IsOneALayerUnlessGroupsAreAskedFor) {
  EXPECT_EQ(state(*step(Role::weight, 4, {}, {8, 3, 3, 3}), "step").shape(), (Shape{1}));
  EXPECT_EQ(state(*step(Role::weight, 4, {{"groups", "8"}}, {8, 3, 3, 3}), "step").shape(),
            (Shape{8, 1, 1, 1}));
  EXPECT_EQ(state(*lsq(Role::weight, 4, {}, {8, 3, 3, 3}), "clip").shape(), (Shape{8, 1, 1, 1}));
}

TEST(LsqStep, ThatIsGivenStays) {
  const auto quantizer = step(Role::activation, 4);
  set(*quantizer, "step", {0.125F});  // a file without the counter
  quantizer->forward(normal({3, 4, 5, 5}, 1));
  EXPECT_EQ(state(*quantizer, "step").values(), Values{0.125F});
  EXPECT_EQ(*state(*quantizer, "initialized").data<std::int64_t>(), 1);
}

TEST(LsqStep, OfAnUntrainedQuantizerIsMeasuredInEvaluationAndNotKept) {
  const auto quantizer = step(Role::activation, 4);
  quantizer->evaluate();
  const Tensor x = normal({3, 4, 5, 5}, 1);
  const Values y = quantizer->forward(x).values();
  EXPECT_EQ(state(*quantizer, "step").values(), Values{0});
  EXPECT_EQ(*state(*quantizer, "initialized").data<std::int64_t>(), 0);
  EXPECT_EQ(step(Role::activation, 4)->forward(x).values(), y);
}

TEST(LsqStep, IsRestoredWithItsCounter) {
  const auto first = step(Role::activation, 4);
  const auto untrained = step(Role::activation, 4)->state_dict();
  first->forward(normal({3, 4, 5, 5}, 1));
  const auto second = step(Role::activation, 4);
  second->load_state_dict(first->state_dict());
  const Tensor x = normal({3, 4, 5, 5}, 2, 10);
  EXPECT_EQ(second->forward(x).values(), first->forward(x).values());
  // An untrained state in a trained quantizer starts again.
  second->load_state_dict(untrained);
  second->forward(x);
  EXPECT_NEAR(static_cast<double>(state(*second, "step").values()[0]),
              2 * mean_magnitude(x.values(), 0, 300) / std::sqrt(15.0), 1e-5);
}

TEST(LsqStep, StartsAfterTheWarmUp) {
  const auto quantizer = step(Role::activation, 4, {{"stable", "1"}});
  const Tensor x = normal({3, 4, 5, 5}, 1);
  EXPECT_EQ(quantizer->forward(normal({3, 4, 5, 5}, 2, 10)).values().size(), 300U);
  EXPECT_EQ(state(*quantizer, "step").values(), Values{0});
  EXPECT_EQ(quantizer->forward(x).values(), step(Role::activation, 4)->forward(x).values());
}

TEST(LsqStep, OfZerosStartsAtOneOverQp) {
  const auto quantizer = step(Role::activation, 4);
  EXPECT_EQ(quantizer->forward(Tensor::zeros({2, 3})).values(), Values(6, 0));
  EXPECT_FLOAT_EQ(state(*quantizer, "step").values()[0], 1.0F / 15);
}

// --- the step's math
// -----------------------------------------------------------------------------------------------------

// Every formula of the paper, in double.
TEST(LsqStep, FollowsThePaper) {
  for (const bool is_signed : {true, false})
    for (const int bits : {2, 3, 8}) {
      const auto quantizer = is_signed ? step(Role::weight, bits) : step(Role::activation, bits);
      const double s = 0.13;
      set(*quantizer, "step", {static_cast<float>(s)});
      const Tensor x = normal({6, 50}, 1);
      const Tensor g = normal({6, 50}, 2);
      const Result result = run(*quantizer, x, g);
      const double qn = is_signed ? std::pow(2, bits - 1) : 0;
      const double qp = is_signed ? qn - 1 : std::pow(2, bits) - 1;
      double grad_s = 0;
      for (std::size_t i = 0; i < 300; ++i) {
        const double v = static_cast<double>(x.values()[i]) / s;
        const double r = std::nearbyint(std::clamp(v, -qn, qp));
        const bool inside = v > -qn && v < qp;
        if (std::abs(std::abs(std::remainder(v, 1)) - 0.5) < 1e-4) continue;
        EXPECT_NEAR(static_cast<double>(result.y[i]), r * s, 1e-5);
        EXPECT_EQ(result.grad_x[i], inside ? g.values()[i] : 0);
        grad_s += static_cast<double>(g.values()[i]) * (inside ? r - v : r);
      }
      grad_s /= std::sqrt((is_signed ? 300 : 50) * qp);
      EXPECT_NEAR(static_cast<double>(result.grad_parameter[0]), grad_s, 1e-4 * std::abs(grad_s) + 1e-4);
    }
}

TEST(LsqStep, ThatCrossesZeroCountsByItsMagnitude) {
  const Tensor x = normal({6, 50}, 1);
  const Tensor g = normal({6, 50}, 2);
  const auto quantizer = step(Role::weight, 4);
  set(*quantizer, "step", {0.2F});
  const Result positive = run(*quantizer, x, g);
  set(*quantizer, "step", {-0.2F});
  const Result negative = run(*quantizer, x, g);
  EXPECT_EQ(negative.y, positive.y);
  EXPECT_EQ(negative.grad_x, positive.grad_x);
  EXPECT_EQ(negative.grad_parameter[0], -positive.grad_parameter[0]);
}

TEST(LsqStep, TakesAnyNumberOfLevels) {
  const auto levels_of = [](const Texts& options) {
    const auto quantizer = step(Role::weight, 4, options);
    set(*quantizer, "step", {1});
    return quantizer->forward(Tensor::from_values({2}, Values{-100, 100})).values();
  };
  EXPECT_EQ(levels_of({}), (Values{-8, 7}));
  EXPECT_EQ(levels_of({{"levels", "3"}}), (Values{-1, 1}));
  EXPECT_EQ(levels_of({{"levels", "6"}}), (Values{-3, 2}));
}

TEST(LsqStep, HalfRangeOffMakesActivationsSigned) {
  const auto quantizer = step(Role::activation, 3, {{"half_range", "false"}});
  set(*quantizer, "step", {1});
  EXPECT_EQ(quantizer->forward(Tensor::from_values({2}, Values{-100, 100})).values(), (Values{-4, 3}));
}

TEST(LsqStep, RefusesWhatHasNoMeaning) {
  EXPECT_THROW(step(Role::weight, 1), ValueError);
  EXPECT_THROW(step(Role::weight, 4, {{"levels", "2"}}), ValueError);
  EXPECT_THROW(step(Role::output, 1), ValueError);
  EXPECT_THROW(step(Role::activation, 1, {{"half_range", "false"}}), ValueError);
  EXPECT_NO_THROW(step(Role::activation, 1));
  EXPECT_THROW(step(Role::weight, 4, {{"grad_scale", "fan-scale"}}), ValueError);
  EXPECT_THROW(step(Role::weight, 4, {{"clamp_grad", "STE-scale"}}), ValueError);
  const auto quantizer = step(Role::weight, 4);
  EXPECT_THROW(quantizer->set_bits(1), ValueError);
  EXPECT_EQ(quantizer->bits(), 4);
  EXPECT_THROW(lsq(Role::weight, 4, {{"boundary", "0"}}), ValueError);
  EXPECT_THROW(lsq(Role::weight, 4, {{"elements", "-1"}}), ValueError);
}

// --- the clipping level
// ---------------------------------------------------------------------------------------------------

TEST(LsqClip, StartsAtTheBoundary) {
  EXPECT_EQ(state(*lsq(Role::weight, 4, {}, {3, 2, 1, 1}), "clip").values(), Values(3, 1));
  EXPECT_EQ(state(*lsq(Role::activation, 4, {{"boundary", "4"}}), "clip").values(), Values(1, 4));
}

// The reference leaves factors between 1 and 2 out.
TEST(LsqClip, EveryGradientFactorIsApplied) {
  const Shape shape{4, 9, 1, 1};
  const Tensor x = normal(shape, 1);
  const Tensor g = normal(shape, 2);
  const Result plain = run(*lsq(Role::weight, 4, {{"groups", "2"}}, shape), x, g);
  const auto factor = [&](const Texts& more) {
    Texts options = more;
    options["groups"] = "2";
    const Result scaled = run(*lsq(Role::weight, 4, options, shape), x, g);
    EXPECT_EQ(scaled.y, plain.y);
    EXPECT_EQ(scaled.grad_x, plain.grad_x);
    EXPECT_NEAR(scaled.grad_parameter[0] / plain.grad_parameter[0],
                scaled.grad_parameter[1] / plain.grad_parameter[1], 1e-4F);
    return scaled.grad_parameter[0] / plain.grad_parameter[0];
  };
  EXPECT_NEAR(factor({{"grad_scale", "fan-scale"}, {"scale", "0.5"}}), 1.5F, 1e-5F);
  EXPECT_NEAR(factor({{"grad_scale", "scale-fan"}, {"scale", "0.5"}}), 0.5F / 3, 1e-5F);
  EXPECT_NEAR(factor({{"grad_scale", "element-scale"}, {"scale", "0.3"}}), 0.3F * std::sqrt(18.0F), 1e-5F);
  EXPECT_NEAR(factor({{"grad_scale", "scale-element"}}), 0.5F / std::sqrt(18.0F), 1e-5F);
  EXPECT_NEAR(factor({{"grad_scale", "element-scale"}, {"elements", "16"}}), 2, 1e-5F);
}

TEST(LsqClip, TheClampIsScaledAlsoWhereMostPasses) {
  const Shape shape{2, 50};
  const Tensor x = normal(shape, 1);
  const Tensor g = normal(shape, 2);
  const Texts scaled{{"clamp_grad", "STE-scale"}, {"boundary", "1.5"}};
  const Result plain = run(*lsq(Role::weight, 4, {{"boundary", "1.5"}}), x, g);
  const Result result = run(*lsq(Role::weight, 4, scaled), x, g);
  int passing = 0;
  for (const float v : x.values()) passing += std::abs(v) <= 1.5F ? 1 : 0;
  ASSERT_GT(passing, 50);
  const float k = std::sqrt(100.0F / static_cast<float>(passing));
  EXPECT_EQ(result.y, plain.y);
  for (std::size_t i = 0; i < 100; ++i) EXPECT_FLOAT_EQ(result.grad_x[i], k * plain.grad_x[i]);
  // Of the whole tensor, also with groups; 1 where nothing passes.
  const auto grouped = lsq(Role::weight, 4, {{"clamp_grad", "STE-scale"}, {"groups", "2"}}, shape);
  set(*grouped, "clip", {1.5F, 1e-20F});
  const Values grad_x = run(*grouped, x, g).grad_x;
  int of_first = 0;
  for (std::size_t i = 0; i < 50; ++i) of_first += std::abs(x.values()[i]) <= 1.5F ? 1 : 0;
  for (std::size_t i = 0; i < 50; ++i)
    if (std::abs(x.values()[i]) <= 1.5F) {
      EXPECT_FLOAT_EQ(grad_x[i], std::sqrt(100.0F / static_cast<float>(of_first)) * g.values()[i]);
    }
  set(*grouped, "clip", {1e-20F, 1e-20F});
  EXPECT_EQ(run(*grouped, x, g).grad_x, Values(100, 0));
}

// A batch that is smaller than the first has the first one's factor, and so has a resumed run.
TEST(LsqClip, TheFirstTrainingBatchGivesTheElements) {
  const Texts options{{"grad_scale", "scale-element"}, {"scale", "1"}, {"groups", "2"}};
  const Shape channels{1, 4, 1, 1};
  const auto first = lsq(Role::activation, 4, options, channels);
  const auto plain = lsq(Role::activation, 4, {{"groups", "2"}}, channels);
  const Tensor large = normal({8, 4, 5, 5}, 1);
  const Tensor small = normal({3, 4, 5, 5}, 2);
  first->evaluate();
  first->forward(small);
  first->train();
  const auto ratio = [&](Quantizer& quantizer, const Tensor& x) {
    const Tensor g = normal(x.shape(), 3);
    return run(quantizer, x, g).grad_parameter[1] / run(*plain, x, g).grad_parameter[1];
  };
  EXPECT_NEAR(ratio(*first, large), 1 / std::sqrt(400.0F), 1e-6F);
  EXPECT_NEAR(ratio(*first, small), 1 / std::sqrt(400.0F), 1e-6F);
  const auto resumed = lsq(Role::activation, 4, options, channels);
  resumed->load_state_dict(first->state_dict());
  EXPECT_NEAR(ratio(*resumed, small), 1 / std::sqrt(400.0F), 1e-6F);
}

// Channel ranges with clips of their own, of which the reference takes only 1 or all.
TEST(LsqClip, ActivationsHaveAnyNumberOfGroups) {
  const auto quantizer = lsq(Role::activation, 8, {{"groups", "3"}}, {1, 6, 1, 1});
  set(*quantizer, "clip", {1, 2, 3});
  const Values y = quantizer->forward(Tensor::full({2, 6, 2, 2}, 100)).values();
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], static_cast<float>(i / 4 % 6 / 2 + 1)) << i;
}

TEST(LsqClip, TheMathFollowsTheSignOfTheClipAlsoWhenManyGroupsShareAThread) {
  const Shape shape{6, 5, 1, 1};
  const auto quantizer = lsq(Role::weight, 2, {}, shape);
  set(*quantizer, "clip", {-1, -1, 1, -1, 1, -1});
  const Tensor x = normal(shape, 1);
  const Tensor g = normal(shape, 2);
  const Result mixed = run(*quantizer, x, g);
  set(*quantizer, "clip", Values(6, 1));
  const Result positive = run(*quantizer, x, g);
  EXPECT_EQ(mixed.y, positive.y);
  const Values signs{-1, -1, 1, -1, 1, -1};
  for (std::size_t i = 0; i < 6; ++i)
    EXPECT_EQ(mixed.grad_parameter[i], signs[i] * positive.grad_parameter[i]) << i;
}

TEST(LsqClip, ZeroAndInfinityGiveNoNaN) {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::from_values({4}, Values{inf, -inf, 0, 5});
  for (const char* half_range : {"true", "false"}) {
    const auto quantizer = lsq(Role::activation, 4, {{"half_range", half_range}});
    const Values y = quantizer->forward(x).values();
    EXPECT_EQ(y[0], 1);
    EXPECT_EQ(y[1], std::string(half_range) == "true" ? 0 : -1);
    set(*quantizer, "clip", {0});
    const Result result = run(*quantizer, x, Tensor::full({4}, 1));
    for (const float v : result.y) EXPECT_NEAR(v, 0, 1e-29F);
    EXPECT_EQ(result.grad_parameter[0], 0);
  }
}

TEST(LsqClip, EvaluationChangesNothing) {
  const auto quantizer =
      lsq(Role::activation, 4, {{"stable", "2"}, {"grad_scale", "element-scale"}, {"quant_loss", "l2"}});
  const auto snapshot = [&] {
    Values all;
    for (const NamedTensor& t : quantizer->state_dict())
      if (t.tensor.dtype() == DType::f32) {
        for (const float v : t.tensor.values()) all.push_back(v);
      } else {
        all.push_back(static_cast<float>(*t.tensor.data<std::int64_t>()));
      }
    return all;
  };
  for (int t = 0; t < 4; ++t) {
    quantizer->evaluate();
    const Values before = snapshot();
    quantizer->forward(normal({3, 4, 5, 5}, 7, 10));
    EXPECT_EQ(snapshot(), before);
    EXPECT_FALSE(quantizer->take_loss().defined());
    quantizer->train();
    quantizer->forward(normal({3, 4, 5, 5}, 8).set_requires_grad(true));
    EXPECT_EQ(quantizer->take_loss().defined(), t >= 2);
  }
}

TEST(Lsq, PadsFirstOnlyWhereZeroIsNoLevel) {
  EXPECT_FALSE(lsq(Role::activation, 4, {})->pads_first());
  EXPECT_TRUE(lsq(Role::activation, 4, {{"half_range", "false"}})->pads_first());
  EXPECT_FALSE(
      lsq(Role::activation, 4, {{"half_range", "false"}, {"padding_after_quant", "true"}})->pads_first());
  EXPECT_FALSE(lsq(Role::activation, 4, {{"half_range", "false"}, {"levels", "15"}})->pads_first());
  EXPECT_FALSE(step(Role::activation, 4, {{"half_range", "false"}})->pads_first());
}

}  // namespace
}  // namespace qtrain::quant
