// What every quantizer of the registry must do, in each of its roles and with every value of its switches and
// choices, one at a time. A new quantizer joins by being registered; where its mathematics is different it is
// named, with the reason, in `exemptions`.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <set>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/io/tensor_file.h"
#include "tests/quant/subjects.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::expect_refused;
using testing_support::normal_values;

enum class Property { idempotent, level_count, uses_levels, monotonic, derivative, finite_for_huge };

struct Exemption {
  Property property;
  std::string reason;
  bool (*applies)(const Subject&);
};

// adabits' weights are sat's.
bool is_sat_weight(const Subject& s) {
  return s.role == Role::weight && (s.quantizer == "sat" || s.quantizer == "adabits");
}

bool rescales(const Subject& s) {
  if (!is_sat_weight(s)) return false;
  return s.layer == LayerKind::linear
             ? !s.option_is("rescale", "none") || s.option_is("rescale_conv", "none")
             : !s.options.empty() &&
                   (s.option_is("rescale", "constant") || s.option_is("rescale", "stddev") ||
                    s.option_is("rescale_conv", "constant") || s.option_is("rescale_conv", "stddev"));
}

bool maps_by_tanh(const Subject& s) {
  return s.quantizer == "sat" || s.quantizer == "adabits" || s.quantizer == "dorefa" || s.quantizer == "pact";
}

// Inputs whose samples, positions or channels are each measured for themselves.
bool measures_parts(const Subject& s) {
  if (s.role != Role::activation) return false;
  if (s.quantizer == "lq-nets") return s.option_is("adaptive", "mean") || s.option_is("adaptive", "var");
  return s.quantizer == "xnor" && !s.options.empty() &&
         (s.option_is("scale", "channel") || s.option_is("scale", "resolution"));
}

const std::vector<Exemption>& exemptions() {
  static const std::vector<Exemption> all = {
      {Property::idempotent, "tanh and the largest weight change with the tensor",
       [](const Subject& s) { return s.role == Role::weight && maps_by_tanh(s); }},
      {Property::idempotent, "mean and standard deviation change with the tensor",
       [](const Subject& s) { return s.setting_is("adaptive", "var-mean"); }},
      {Property::uses_levels, "the first step is 2 mean|x| / sqrt(Qp), so many bits reach beyond the values",
       [](const Subject& s) { return s.setting_is("parametrization", "step"); }},
      {Property::idempotent, "the result is a code, or a code times a scale of the batch",
       [](const Subject& s) { return s.quantizer == "fatnn"; }},
      {Property::idempotent, "the range is measured anew, and its ends are met to rounding error only",
       [](const Subject& s) { return s.quantizer == "dsq" || s.quantizer == "uniform"; }},
      {Property::derivative, "the scale counts as a constant", rescales},
      {Property::uses_levels, "most powers of two are smaller than all values",
       [](const Subject& s) { return s.quantizer == "pow2" || s.quantizer == "mixed-pow2"; }},
      {Property::idempotent, "the basis has moved, and what normalizes is measured again",
       [](const Subject& s) { return s.quantizer == "lq-nets"; }},
      {Property::level_count, "each part has levels of its own", measures_parts},
      {Property::uses_levels, "above its minimum, the input is beyond most of the first basis's levels",
       [](const Subject& s) {
         return s.quantizer == "lq-nets" && s.role == Role::activation && s.option_is("adaptive", "min");
       }},
      {Property::monotonic, "each sample has levels of its own",
       [](const Subject& s) { return s.quantizer == "lq-nets" && measures_parts(s); }},
      {Property::finite_for_huge, "the distance from the mean, or the gain's gradient, overflows float32",
       [](const Subject& s) {
         return s.quantizer == "xnor" &&
                (s.option_is("adaptive", "var-mean") || s.option_is("gamma", "true"));
       }},
      {Property::finite_for_huge, "the standard deviation of the weights themselves overflows float32",
       [](const Subject& s) {
         return s.option_is("rescale", "stddev") || s.option_is("rescale_conv", "stddev") ||
                s.setting_is("adaptive", "var-mean");
       }},
  };
  return all;
}

bool exempt(const Subject& subject, Property property) {
  return std::any_of(exemptions().begin(), exemptions().end(),
                     [&](const Exemption& e) { return e.property == property && e.applies(subject); });
}

// --- tools
// -------------------------------------------------------------------------------------------------------

Tensor normal(const Shape& shape, double deviation, std::uint64_t seed = 1) {
  return Tensor::from_values(shape, normal_values(static_cast<std::size_t>(shape.numel()), deviation, seed));
}

struct Gradients {
  Tensor y;
  Tensor x;
  std::vector<Tensor> parameters;
};

// Forward and, with g = dL/dy, backward. What nothing depends on has gradient 0.
Gradients run(Quantizer& quantizer, const Tensor& values, const Tensor& g) {
  Tensor x = values.clone();
  x.set_requires_grad(true);
  Gradients result;
  result.y = quantizer.forward(x);
  for (const Tensor& p : quantizer.parameters()) p.set_grad({});
  if (result.y.producer() != nullptr) Tape::backward(result.y, g);
  result.x = result.y.producer() == nullptr ? g : x.grad();
  for (const Tensor& p : quantizer.parameters())
    result.parameters.push_back(p.grad().defined() ? p.grad() : Tensor::zeros_like(p));
  return result;
}

bool all_finite(const Tensor& t) {
  const std::vector<float> values = t.values();
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

double weighted_sum(Quantizer& quantizer, const Tensor& x, const std::vector<float>& g) {
  const NoGradGuard no_grad;
  const std::vector<float> y = quantizer.forward(x).values();
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(y[i]) * static_cast<double>(g[i]);
  return sum;
}

// d(weighted sum)/d(element i) by central differences, or NaN where two step widths disagree: a kink is near.
double difference_quotient(Quantizer& quantizer, const Tensor& x, const Tensor& moved, std::size_t i,
                           const std::vector<float>& g, double tolerance) {
  const std::vector<float> before = moved.values();
  const auto slope = [&](float step) {
    double ends[2] = {0, 0};
    double at[2] = {0, 0};
    for (int side = 0; side < 2; ++side) {
      std::vector<float> values = before;
      values[i] += side == 0 ? -step : step;
      at[side] = static_cast<double>(values[i]);
      moved.copy_from(Tensor::from_values(moved.shape(), values));
      ends[side] = weighted_sum(quantizer, x, g);
    }
    moved.copy_from(Tensor::from_values(moved.shape(), before));
    return (ends[1] - ends[0]) / (at[1] - at[0]);
  };
  const double wide = slope(8e-3F);
  const double narrow = slope(4e-3F);
  return std::abs(wide - narrow) <= tolerance ? narrow : std::numeric_limits<double>::quiet_NaN();
}

class Conformance : public testing::TestWithParam<Subject> {};

// --- the properties
// ----------------------------------------------------------------------------------------------

TEST_P(Conformance, KeepsShapeAndHasAtMostTwoToTheBitsLevels) {
  const Subject& s = GetParam();
  for (int bits = 1; bits <= 8; ++bits) {
    const auto quantizer = s.make_if_possible(bits);
    if (quantizer == nullptr || quantizer->bits() >= float_bits) continue;
    for (const bool training : {true, false}) {
      quantizer->train(training);
      const Tensor x = s.layer == LayerKind::linear ? normal({64, 128}, usual_deviation(s))
                                                    : normal({8, 16, 8, 8}, usual_deviation(s));
      const Tensor y = quantizer->forward(x);
      EXPECT_EQ(y.shape(), x.shape());
      const std::vector<float> values = y.values();
      const std::set<float> levels(values.begin(), values.end());
      if (exempt(s, Property::level_count)) continue;
      EXPECT_LE(levels.size(), std::size_t{1} << bits) << bits << " bits";
      if (exempt(s, Property::uses_levels)) continue;
      EXPECT_GE(levels.size(), training ? (std::size_t{1} << bits) / 3 : 1)
          << bits << " bits";  // most are used
    }
  }
}

TEST_P(Conformance, IsMonotonic) {
  const Subject& s = GetParam();
  if (exempt(s, Property::monotonic)) GTEST_SKIP();
  for (const int bits : {1, 2, 3, 4, 8, 16, 31, 32}) {
    const auto quantizer = s.make_if_possible(bits);
    if (quantizer == nullptr) continue;
    std::vector<float> values = normal_values(8192, usual_deviation(s));
    std::sort(values.begin(), values.end());
    const std::vector<float> y = quantizer->forward(Tensor::from_values({64, 128}, values)).values();
    EXPECT_TRUE(std::is_sorted(y.begin(), y.end())) << bits << " bits";
  }
}

TEST_P(Conformance, IsIdempotent) {
  const Subject& s = GetParam();
  if (exempt(s, Property::idempotent)) GTEST_SKIP();
  for (const int bits : {2, 3, 4, 8, 32}) {
    const auto quantizer = s.make_if_possible(bits);
    if (quantizer == nullptr) continue;
    const Tensor once = quantizer->forward(normal(usual_shape(s), usual_deviation(s)));
    EXPECT_EQ(quantizer->forward(once).values(), once.values()) << bits << " bits";
  }
}

// At 32 bits nothing is rounded, so the gradients are derivatives.
TEST_P(Conformance, GradientsAreDerivativesWhereNothingIsRounded) {
  const Subject& s = GetParam();
  if (exempt(s, Property::derivative)) GTEST_SKIP();
  const auto quantizer = s.make(float_bits);
  const Tensor x = normal(usual_shape(s), usual_deviation(s));
  const std::vector<float> g = normal_values(static_cast<std::size_t>(x.numel()), 1, 2);
  const Gradients gradients = run(*quantizer, x, Tensor::from_values(x.shape(), g));
  const auto check = [&](const Tensor& moved, const Tensor& gradient, const char* what) {
    const std::vector<float> analytic = gradient.values();
    double largest = 0.1;
    for (const float v : analytic) largest = std::max(largest, static_cast<double>(std::abs(v)));
    const double tolerance = 0.01 * largest;
    int checked = 0;
    for (std::size_t i = 0; i < std::min<std::size_t>(analytic.size(), 100); ++i) {
      const double numeric = difference_quotient(*quantizer, x, moved, i, g, tolerance);
      if (std::isnan(numeric)) continue;
      ++checked;
      EXPECT_NEAR(static_cast<double>(analytic[i]), numeric, tolerance) << what << " " << i;
    }
    EXPECT_GE(checked, std::min<std::int64_t>(moved.numel(), 100) * 8 / 10) << what;
  };
  check(x, gradients.x, "x");
  for (std::size_t k = 0; k < gradients.parameters.size(); ++k)
    check(quantizer->parameters()[k], gradients.parameters[k], "parameter");
}

// The gradient is linear in dL/dy: twice the one gives twice the other, zero gives zero.
TEST_P(Conformance, GradientsAreLinear) {
  const Subject& s = GetParam();
  const auto quantizer = s.make_usual();
  const Tensor x = normal(usual_shape(s), usual_deviation(s));
  const std::vector<float> g = normal_values(static_cast<std::size_t>(x.numel()), 1, 2);
  std::vector<float> twice = g;
  for (float& v : twice) v *= 2;
  quantizer->evaluate();  // running statistics stay
  const Gradients one = run(*quantizer, x, Tensor::from_values(x.shape(), g));
  const Gradients two = run(*quantizer, x, Tensor::from_values(x.shape(), twice));
  const Gradients none = run(*quantizer, x, Tensor::zeros(x.shape()));
  const auto doubled = [](const Tensor& t) {
    std::vector<float> values = t.values();
    for (float& v : values) v *= 2;
    return values;
  };
  EXPECT_EQ(two.x.values(), doubled(one.x));
  for (const float v : none.x.values()) EXPECT_EQ(v, 0);
  for (std::size_t k = 0; k < one.parameters.size(); ++k) {
    EXPECT_EQ(two.parameters[k].values(), doubled(one.parameters[k]));
    for (const float v : none.parameters[k].values()) EXPECT_EQ(v, 0);
  }
}

TEST_P(Conformance, StateSurvivesAFile) {
  const Subject& s = GetParam();
  const auto folder =
      std::filesystem::temp_directory_path() / ("qtrain-conformance-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string file = (folder / "state.safetensors").string();
  const auto first = s.make_usual();
  const Tensor x = normal(usual_shape(s), usual_deviation(s));
  first->forward(x);  // moves running statistics
  for (const NamedTensor& p : first->named_parameters()) {
    std::vector<float> values = p.tensor.values();
    for (float& v : values) v *= 0.75F;
    p.tensor.copy_from(Tensor::from_values(p.tensor.shape(), values));
  }
  TensorMap state;
  for (const NamedTensor& t : first->state_dict()) state[t.name] = t.tensor;
  save_tensors(file, state);
  const auto second = s.make_usual();
  second->load_state_dict(to_named_tensors(load_tensors(file)));
  std::filesystem::remove_all(folder);
  first->evaluate();
  second->evaluate();
  EXPECT_EQ(second->forward(x).values(), first->forward(x).values());
}

TEST_P(Conformance, SetBitsTakesEffectAtTheNextForward) {
  const Subject& s = GetParam();
  const Tensor x = normal(usual_shape(s), usual_deviation(s));
  const auto changed = s.make_usual();
  const bool has_bits = changed->bits() < float_bits;
  const int usual = s.usual_bits();
  const int other =
      s.make_if_possible(3) != nullptr ? 3 : (usual > 1 && s.make_if_possible(1) != nullptr ? 1 : float_bits);
  changed->evaluate();
  changed->forward(x);
  changed->set_bits(other);
  const auto fresh = s.make(other);
  fresh->evaluate();
  EXPECT_EQ(changed->bits(), fresh->bits());
  EXPECT_EQ(changed->forward(x).values(), fresh->forward(x).values());
  if (!has_bits) return;  // bits mean nothing to it
  for (const int bits : {-1, 0, 33}) EXPECT_THROW(changed->set_bits(bits), ValueError) << bits;
  EXPECT_EQ(changed->bits(), other);
}

TEST_P(Conformance, TakesEveryWeightShapeAndOddSizes) {
  const Subject& s = GetParam();
  std::vector<Shape> shapes = {{1, 1}, {1, 7}, {13, 1}, {7, 11}, {127, 129}};
  if (s.layer == LayerKind::convolution)
    shapes = {{1, 1, 1, 1}, {8, 1, 3, 3}, {6, 5, 1, 1}, {1, 3, 5, 7}, {17, 31, 3, 1}, {2, 8193, 1, 1}};
  for (const Shape& shape : shapes)
    for (const int bits : {1, 2, 4, 32}) {
      const auto quantizer = s.make_if_possible(bits);
      if (quantizer == nullptr) continue;
      const Gradients result = run(*quantizer, normal(shape, usual_deviation(s)), normal(shape, 1, 3));
      EXPECT_EQ(result.y.shape(), shape);
      EXPECT_EQ(result.x.shape(), shape);
      EXPECT_TRUE(all_finite(result.y) && all_finite(result.x)) << shape.str() << " " << bits << " bits";
    }
}

struct Special {
  std::string name;
  std::vector<float> values;
};

std::vector<Special> finite_specials() {
  const float most = std::numeric_limits<float>::max();
  const auto mixed = [](float scale) {
    return std::vector<float>{scale, -scale, 0, scale / 2, -scale / 4, 0.1F * scale};
  };
  return {{"all zero", {0, 0, 0, 0, 0, 0}},
          {"negative zeros", {-0.0F, 0, -0.0F, 0, -0.0F, 0}},
          {"constant", {0.3F, 0.3F, 0.3F, 0.3F, 0.3F, 0.3F}},
          {"negative constant", {-0.3F, -0.3F, -0.3F, -0.3F, -0.3F, -0.3F}},
          {"one of them not zero", {0, 0, 0, 1e-3F, 0, 0}},
          {"large", mixed(1e6F)},
          {"huge", mixed(1e30F)},
          {"largest", mixed(most)},
          {"small", mixed(1e-6F)},
          {"tiny", mixed(1e-30F)},
          {"smallest normal", mixed(std::numeric_limits<float>::min())},
          {"denormal", mixed(1e-42F)},
          {"least denormal", {std::numeric_limits<float>::denorm_min(), 0, 0, 0, 0, 0}}};
}

TEST_P(Conformance, FiniteInputGivesFiniteResults) {
  const Subject& s = GetParam();
  const Shape shape = s.layer == LayerKind::linear ? Shape{2, 3} : Shape{2, 1, 1, 3};
  for (const Special& special : finite_specials()) {
    const bool huge = special.name == "huge" || special.name == "largest";
    if (huge && exempt(s, Property::finite_for_huge)) continue;
    for (const int bits : {1, 2, 4, 8, 32})
      for (const bool training : {true, false}) {
        const auto quantizer = s.make_if_possible(bits);
        if (quantizer == nullptr) continue;
        quantizer->train(training);
        const Gradients result =
            run(*quantizer, Tensor::from_values(shape, special.values), normal(shape, 1, 3));
        const std::string what = special.name + ", " + std::to_string(bits) + " bits";
        EXPECT_TRUE(all_finite(result.y)) << what;
        EXPECT_TRUE(all_finite(result.x)) << what;
        for (const Tensor& p : result.parameters) EXPECT_TRUE(all_finite(p)) << what;
      }
  }
}

// A NaN is never turned into a number, and an infinity into neither a wrong order nor a NaN elsewhere without
// trace.
TEST_P(Conformance, NotANumberStaysVisible) {
  const Subject& s = GetParam();
  const Shape shape = s.layer == LayerKind::linear ? Shape{2, 3} : Shape{2, 1, 1, 3};
  for (const int bits : {1, 2, 4, 8, 32}) {
    const auto quantizer = s.make_if_possible(bits);
    if (quantizer == nullptr) continue;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const Gradients result =
        run(*quantizer, Tensor::from_values(shape, {1, nan, 2, -1, 0, 0.5F}), normal(shape, 1, 3));
    EXPECT_TRUE(std::isnan(result.y.values()[1])) << bits << " bits";
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> y =
        quantizer->forward(Tensor::from_values(shape, {1, infinity, 2, -1, 0, -infinity})).values();
    const bool has_nan = std::any_of(y.begin(), y.end(), [](float v) { return std::isnan(v); });
    EXPECT_TRUE(has_nan || (y[1] >= y[2] && y[5] <= y[3])) << bits << " bits";
  }
}

TEST_P(Conformance, RefusesWhatIsNoFloatTensor) {
  const Subject& s = GetParam();
  const auto quantizer = s.make_usual();
  if (quantizer->bits() >= float_bits) GTEST_SKIP();  // looks at nothing
  EXPECT_THROW(quantizer->forward(Tensor()), Error);
  const std::vector<std::int64_t> whole(6);
  EXPECT_THROW(quantizer->forward(Tensor::from_values<std::int64_t>({2, 3}, whole)), DTypeError);
}

TEST_P(Conformance, RefusesBitWidthsThatThereAreNot) {
  const Subject& s = GetParam();
  for (const int bits : {-1, 0, 33, 1000}) EXPECT_THROW(s.make(bits), ValueError) << bits;
}

TEST_P(Conformance, DescribesItself) {
  const auto quantizer = GetParam().make_usual();
  EXPECT_FALSE(quantizer->kind().empty());
  EXPECT_EQ(quantizer->describe().find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Registry, Conformance, testing::ValuesIn(subjects()),
                         [](const auto& tested) { return tested.param.name(); });

// --- the registry itself
// -----------------------------------------------------------------------------------------

TEST(Registry, EveryQuantizerIsDocumented) {
  for (const QuantizerInfo* info : quantizers()) {
    EXPECT_FALSE(info->summary.empty()) << info->name;
    EXPECT_FALSE(info->roles.empty()) << info->name;
    for (const Role role : info->roles)
      for (const OptionSpec& spec : info->options(role)) {
        EXPECT_FALSE(spec.help.empty()) << info->name << " " << spec.name;
        EXPECT_NO_THROW(Options(info->name, info->options(role), {{spec.name, spec.default_value}}))
            << spec.name;
      }
  }
}

TEST(Registry, NamesTheNearestWhenSomethingIsUnknown) {
  const auto make = [](const std::string& name, const std::map<std::string, std::string>& options) {
    return [=] { make_quantizer(name, Role::weight, 4, LayerKind::convolution, options); };
  };
  expect_refused(make("saat", {}), "did you mean 'sat'?");
  expect_refused(make("sat", {{"sceme", "original"}}), "did you mean 'scheme'?");
  expect_refused(make("sat", {{"scheme", "centred"}}), "did you mean 'centered'?");
  expect_refused(make("sat", {{"clamp", "maybe"}}), "true or false");
  expect_refused(make("sat", {{"alpha", "3"}}), "unknown option 'alpha'");
  expect_refused(
      [] {
        make_quantizer("sat", Role::activation, 4, LayerKind::convolution, {{"alpha", "eight"}});
      },
      "a finite number");
  expect_refused(
      [] {
        make_quantizer("sat", Role::activation, 4, LayerKind::convolution, {{"alpha", "inf"}});
      },
      "a finite number");
  expect_refused(
      [] {
        make_quantizer("sat", Role::activation, 4, LayerKind::convolution, {{"alpha", "1e999"}});
      },
      "a finite number");
  expect_refused(
      [] {
        make_quantizer("sat", Role::activation, 4, LayerKind::convolution, {{"alpha", ""}});
      },
      "a finite number");
  expect_refused([] { parse_role("weights"); }, "weight, activation, output or bias");
}

TEST(Registry, RefusesANameTwice) {
  expect_refused([] { register_quantizer({.name = "sat", .make = {}}); }, "already");
}

TEST(Plugin, WhatIsNoPluginIsRefused) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("qtrain-plugin-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  EXPECT_THROW(load_plugin((folder / "missing.so").string()), IoError);
  EXPECT_THROW(load_plugin(folder.string()), IoError);
  save_tensors((folder / "tensors.so").string(), {{"x", Tensor::zeros({1})}});
  EXPECT_THROW(load_plugin((folder / "tensors.so").string()), IoError);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace qtrain::quant
