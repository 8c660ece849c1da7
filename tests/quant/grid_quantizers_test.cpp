// What is particular to fixed-point, pow2, mixed-uniform and mixed-pow2 and not in their golden cases: where
// their numbers start and stay, what is refused, the borders, and the gradients of the learned numbers by
// finite differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <tuple>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "layers/conv2d.h"
#include "layers/sequential.h"
#include "quant/quantized_layers.h"
#include "quant/quantizers/power_of_two.h"
#include "quant/registry.h"
#include "quant/wrap.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::normal_values;

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

std::shared_ptr<Quantizer> make(const std::string& name, Role role, int bits, const Texts& options = {}) {
  return make_quantizer(name, role, bits, LayerKind::convolution, options);
}

Tensor row(const Values& values) {
  return Tensor::from_values({static_cast<std::int64_t>(values.size()), 1}, values);
}

Tensor number(Quantizer& quantizer, const std::string& name) {
  for (const NamedTensor& t : quantizer.state_dict())
    if (t.name == name) return t.tensor;
  ADD_FAILURE() << "no " << name;
  return Tensor::full({1}, nan);
}

float value_of(Quantizer& quantizer, const std::string& name) {
  return number(quantizer, name).values()[0];
}

void give(Quantizer& quantizer, const std::string& name, float value) {
  number(quantizer, name).copy_from(Tensor::full({1}, value));
}

std::int64_t initialized(Quantizer& quantizer) {
  return *number(quantizer, "initialized").data<std::int64_t>();
}

struct Result {
  Values y;
  Values grad_x;
  std::map<std::string, float> grads;
};

Result run(Quantizer& quantizer, const Values& values, const Values& g) {
  Tensor x = row(values);
  x.set_requires_grad(true);
  const Tensor y = quantizer.forward(x);
  Tape::backward(y, row(g));
  Result result{y.values(), x.grad().values(), {}};
  for (const NamedTensor& p : quantizer.named_parameters())
    result.grads[p.name] = p.tensor.grad().defined() ? p.tensor.grad().item() : 0;
  return result;
}

Result run(Quantizer& quantizer, const Values& values) {
  return run(quantizer, values, Values(values.size(), 1));
}

// --- powers of two
// ------------------------------------------------------------------------------------------------------------

TEST(PowerOfTwo, IsExactAtEveryPowerAndTurnsAtTheSquareRootOfTwo) {
  for (int n = -126; n <= 127; ++n) {
    const float power = std::ldexp(1.0F, n);
    EXPECT_EQ(nearest_power(power), power) << n;
    EXPECT_EQ(nearest_power(std::nextafter(power, infinity)), power) << n;
    EXPECT_EQ(power_below(power), power) << n;
    EXPECT_EQ(power_below(std::nextafter(2 * power, 0.0F)), power) << n;
    EXPECT_EQ(power_of_two(static_cast<float>(n)), std::min(power, 0x1p126F)) << n;
    // The two floats beside sqrt(2) 2^n: no float is a tie of the logarithm.
    const auto below = static_cast<float>(std::ldexp(1.41421354F, n));
    EXPECT_EQ(nearest_power(below), power) << n;
    EXPECT_EQ(nearest_power(std::nextafter(below, infinity)), 2 * power) << n;  // infinity, of the last
  }
  EXPECT_EQ(nearest_power(infinity), infinity);
  EXPECT_TRUE(std::isnan(nearest_power(nan)));
  EXPECT_TRUE(std::isnan(power_of_two(nan)));
  EXPECT_LE(nearest_power(std::numeric_limits<float>::denorm_min()), std::numeric_limits<float>::min());
}

TEST(PowerOfTwo, AgreesWithTheLogarithmElsewhere) {
  for (const float v : normal_values(20000, 3, 5)) {
    const double magnitude = std::abs(static_cast<double>(v));
    if (magnitude == 0) continue;
    EXPECT_EQ(static_cast<double>(nearest_power(std::abs(v))), std::exp2(std::round(std::log2(magnitude))));
  }
}

// --- where the numbers start
// ------------------------------------------------------------------------------------------------------------

TEST(GridStart, TheStepComesFromTheFirstTrainingForwardAndStays) {
  const auto quantizer = make("fixed-point", Role::weight, 4);
  quantizer->forward(row({0.7F, -0.3F}));
  EXPECT_EQ(value_of(*quantizer, "delta"), 0.0625F);  // 0.7 / 7 = 0.1, down at 4 bits and fewer
  EXPECT_EQ(initialized(*quantizer), 1);
  quantizer->forward(row({100, 0}));
  quantizer->evaluate();
  quantizer->forward(row({1000, 0}));
  EXPECT_EQ(value_of(*quantizer, "delta"), 0.0625F);
  const auto wider = make("fixed-point", Role::weight, 5);
  wider->forward(row({0.7F, -0.3F}));
  EXPECT_EQ(value_of(*wider, "delta"), 0.0625F);  // 0.7 / 15 = 0.047, up from 5 bits on
}

// A largest weight of exactly (2^n - 1) 2^k: the epsilon pushes it over, to twice the step.
TEST(GridStart, ExactPowersAreNotMovedByALogarithm) {
  const auto quantizer = make("fixed-point", Role::weight, 5);
  quantizer->forward(row({1024 * 15}));
  EXPECT_EQ(value_of(*quantizer, "delta"), 1024);  // at 15360 the epsilon is lost in rounding
  const auto small = make("fixed-point", Role::weight, 5);
  small->forward(row({15.0F / 16}));
  EXPECT_EQ(value_of(*small, "delta"), 0.125F);
}

TEST(GridStart, EvaluationBeforeTrainingChangesNothing) {
  for (const char* name : {"fixed-point", "pow2", "mixed-uniform", "mixed-pow2"}) {
    const auto quantizer = make(name, Role::weight, 4);
    quantizer->evaluate();
    const Values y = quantizer->forward(row({0.7F, -0.3F})).values();
    EXPECT_EQ(initialized(*quantizer), 0) << name;
    EXPECT_NE(y, quantizer->forward(row({70, -30})).values()) << name;
    quantizer->train();
    EXPECT_EQ(quantizer->forward(row({0.7F, -0.3F})).values(), y) << name;
    EXPECT_EQ(initialized(*quantizer), 1) << name;
  }
}

TEST(GridStart, GivenValuesWinEachByItself) {
  const auto quantizer = make("mixed-uniform", Role::weight, 4);
  give(*quantizer, "d", 0.03F);
  quantizer->forward(row({0.7F, -0.3F}));
  EXPECT_EQ(value_of(*quantizer, "d"), 0.03F);
  EXPECT_EQ(value_of(*quantizer, "xmax"), 0.4375F);  // found: 7 / 16
  const auto restored = make("mixed-uniform", Role::weight, 4);
  restored->load_state_dict(quantizer->state_dict());
  restored->forward(row({70}));
  EXPECT_EQ(value_of(*restored, "xmax"), 0.4375F);
}

TEST(GridStart, ANaNFromTrainingIsNotStartedAnew) {
  const auto quantizer = make("mixed-uniform", Role::weight, 4);
  quantizer->forward(row({0.7F}));
  give(*quantizer, "d", nan);
  EXPECT_TRUE(std::isnan(quantizer->forward(row({0.7F})).values()[0]));
  EXPECT_TRUE(std::isnan(value_of(*quantizer, "d")));
}

TEST(GridStart, EvaluationGivesGradientsToGivenNumbers) {
  const auto quantizer = make("mixed-uniform", Role::weight, 4);
  give(*quantizer, "d", 0.125F);
  give(*quantizer, "xmax", 0.8F);
  quantizer->evaluate();
  EXPECT_EQ(run(*quantizer, {1, 0.5F}).grads.at("xmax"), 1);
}

TEST(GridStart, InputsStartFromTheStepAlone) {
  const auto value = [](const char* name, int bits, const Texts& options, const char* which) {
    return value_of(*make(name, Role::activation, bits, options), which);
  };
  EXPECT_EQ(value("fixed-point", 4, {}, "delta"), 0.125F);
  EXPECT_EQ(value("pow2", 4, {}, "m"), 1);  // P(15 / 8) = 2
  EXPECT_EQ(value("pow2", 4, {{"m", "-3"}}, "m"), -3);
  EXPECT_EQ(value("mixed-uniform", 3, {{"d_init", "0.5"}}, "xmax"), 3.5F);
  EXPECT_EQ(value("mixed-uniform", 3, {{"d_init", "0.5"}, {"sign", "true"}}, "xmax"), 1.5F);
  EXPECT_EQ(value("mixed-pow2", 4, {}, "xmin"), 0.015625F);
  EXPECT_EQ(value("mixed-pow2", 4, {{"parametrization", "b_range"}}, "m"), 1);
}

TEST(GridStart, NumbersStartInsideTheirBounds) {
  const auto quantizer = make("mixed-uniform", Role::weight, 2, {{"parametrization", "b_xmax"}});
  quantizer->forward(row({500}));
  EXPECT_GT(value_of(*quantizer, "b"), 2);
  EXPECT_LT(value_of(*quantizer, "xmax"), 127);
  const auto bounded = make("mixed-uniform", Role::weight, 4);
  bounded->forward(row({500}));  // the step stops at 1, and so does the range that goes with it
  EXPECT_EQ(value_of(*bounded, "xmax"), 7);
}

TEST(GridStart, ABiasStartsFromTheWeightsBesideIt) {
  for (const char* name : {"fixed-point", "mixed-uniform"}) {
    const auto quantizer = make(name, Role::bias, 4);
    quantizer->follow_weight(row({0.7F}));
    quantizer->forward(Tensor::zeros({3}));
    EXPECT_EQ(value_of(*quantizer, name == std::string("fixed-point") ? "delta" : "d"), 0.0625F) << name;
  }
}

TEST(GridStart, TheLayerTellsItsBiasQuantizer) {
  const Tensor weight = Tensor::from_values({1, 1, 1, 1}, {0.7F});
  const Tensor bias = Tensor::from_values({1}, {0.1F});
  const auto own = make("fixed-point", Role::bias, 4);
  QuantizedConv2d layer(Conv2d(weight, bias, {}),
                        {.weight = make("fixed-point", Role::weight, 4), .input = nullptr, .bias = own});
  layer.forward(Tensor::zeros({1, 1, 2, 2}));
  EXPECT_EQ(value_of(*own, "delta"), 0.0625F);
}

TEST(GridStart, AnotherBitWidthStartsAnew) {
  const auto quantizer = make("mixed-uniform", Role::weight, 4, {{"parametrization", "b_xmax"}});
  quantizer->forward(row({0.7F}));
  quantizer->set_bits(3);
  quantizer->forward(row({0.7F}));
  EXPECT_EQ(value_of(*quantizer, "b"), 3);
  EXPECT_EQ(value_of(*quantizer, "xmax"), 0.375F);  // 3 steps of 1 / 8
  EXPECT_THROW(quantizer->set_bits(9), ValueError);
  EXPECT_EQ(quantizer->bits(), 3);
}

TEST(GridStart, AZeroTensorHasATinyGrid) {
  const auto quantizer = make("fixed-point", Role::weight, 4);
  EXPECT_EQ(run(*quantizer, {0, 0}).y, (Values{0, 0}));
  EXPECT_GT(value_of(*quantizer, "delta"), 0);
}

// --- what is refused
// ------------------------------------------------------------------------------------------------------------

void expect_refused(const std::string& name, Role role, int bits, const Texts& options,
                    const std::string& part) {
  try {
    make(name, role, bits, options);
    ADD_FAILURE() << name << " " << bits;
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(GridRefusals, SayWhy) {
  const std::string alone = "a sign alone leaves no bit";
  expect_refused("fixed-point", Role::weight, 1, {}, alone);
  expect_refused("fixed-point", Role::activation, 4, {{"delta", "0"}}, "isn't known before training");
  expect_refused("fixed-point", Role::weight, 4, {{"delta", "-1"}}, "delta");
  expect_refused("pow2", Role::weight, 1, {}, "at least one bit must remain");
  expect_refused("pow2", Role::weight, 2, {{"with_zero", "true"}}, "at least one bit must remain");
  expect_refused("pow2", Role::weight, 4, {{"m", "61"}}, "-60..60");
  expect_refused("mixed-uniform", Role::weight, 1, {}, alone);
  expect_refused("mixed-uniform", Role::weight, 4, {{"parametrization", "d_b"}, {"b_min", "1"}}, alone);
  expect_refused("mixed-uniform", Role::activation, 4, {{"parametrization", "d_b"}, {"sign", "true"}}, alone);
  expect_refused("mixed-uniform", Role::weight, 9, {{"parametrization", "b_xmax"}}, "b_min..b_max");
  expect_refused("mixed-uniform", Role::weight, 4, {{"d_min", "2"}}, "d_min");
  expect_refused("mixed-uniform", Role::weight, 4, {{"xmax_min", "0"}}, "xmax_min");
  expect_refused("mixed-pow2", Role::weight, 1, {{"with_zero", "true"}}, "take a bit each");
  expect_refused("mixed-pow2", Role::weight, 1, {{"parametrization", "b_xmax"}}, "b_min..b_max");
  expect_refused("mixed-pow2", Role::activation, 4, {{"xmin_min", "300"}}, "xmin_max");
}

// --- the borders
// ------------------------------------------------------------------------------------------------------------

TEST(FixedPoint, KeepsTheGradientAtItsBounds) {
  const auto quantizer = make("fixed-point", Role::weight, 3, {{"delta", "0.5"}});
  const Result result = run(*quantizer, {-infinity, -2, -1.5F, -0.25F, 0.2F, 1.5F, 1.6F, infinity, nan});
  EXPECT_EQ(Values(result.y.begin(), result.y.end() - 1),
            (Values{-1.5F, -1.5F, -1.5F, -0.5F, 0, 1.5F, 1.5F, 1.5F}));
  EXPECT_TRUE(std::isnan(result.y.back()));
  EXPECT_EQ(result.grad_x, (Values{0, 0, 1, 1, 1, 1, 0, 0, 0}));
}

TEST(Pow2, LevelsAndGradientsAtTheBorders) {
  const auto quantizer = make("pow2", Role::weight, 3, {{"m", "0"}});
  const Result result = run(*quantizer, {-infinity, -1.5F, -1.4F, -0.1F, 0, 1e-42F, 0.7F, 0.71F});
  EXPECT_EQ(result.y, (Values{-1, -1, -1, -0.125F, 0.125F, 0.125F, 0.5F, 1}));
  EXPECT_EQ(result.grad_x, (Values{0, 0, 1, 1, 1, 1, 1, 1}));
}

TEST(MixedUniform, ARangeThatIsNoMultipleOfTheStepIsLeftBesideIt) {
  const auto quantizer = make("mixed-uniform", Role::weight, 4);
  give(*quantizer, "d", 0.25F);
  give(*quantizer, "xmax", 0.9F);
  const Result result = run(*quantizer, {5, -5, 0.9F, 0.89F});
  EXPECT_EQ(result.y, (Values{1, -1, 1, 1}));  // beyond xmax
  EXPECT_EQ(result.grad_x, (Values{0, 0, 0, 1}));
}

TEST(MixedPow2, NothingComesOfZero) {
  const auto quantizer = make("mixed-pow2", Role::weight, 4);
  give(*quantizer, "xmin", 0.125F);
  give(*quantizer, "xmax", 1);
  const Result result = run(*quantizer, {0, -0.0F, 1e-42F, 0.125F, 1, -1});
  EXPECT_EQ(result.y, (Values{0.125F, 0.125F, 0.125F, 0.125F, 1, -1}));
  EXPECT_EQ(result.grad_x, (Values{0, 0, 0, 1, 0, 0}));
}

TEST(MixedPow2, WhereXminHasPassedXmaxBothAreAddedAsInTheReference) {
  const auto quantizer = make("mixed-pow2", Role::weight, 4);
  give(*quantizer, "xmin", 1);
  give(*quantizer, "xmax", 0.25F);
  EXPECT_EQ(run(*quantizer, {0.1F, 0.5F, 2}).y, (Values{1, 1.25F, 0.25F}));
}

TEST(MixedPow2, ManyBitsStayFinite) {
  for (const char* form : {"b_xmax", "b_xmin", "b_range"}) {
    const auto quantizer =
        make("mixed-pow2", Role::weight, 31,
             {{"parametrization", form}, {"b_max", "31"}, {"m_max", "60"}, {"xmax_max", "1e9"}});
    const Result result = run(*quantizer, {1e38F, -1e38F, 1, 0, 1e-30F});
    for (const float v : result.y) EXPECT_TRUE(std::isfinite(v)) << form;
    for (const auto& [name, v] : result.grads) EXPECT_TRUE(std::isfinite(v)) << form << " " << name;
  }
}

TEST(GridPadding, ZerosAreQuantizedWhereZeroIsNoLevel) {
  EXPECT_FALSE(make("pow2", Role::activation, 4)->pads_first());
  EXPECT_TRUE(make("pow2", Role::activation, 4, {{"with_zero", "false"}})->pads_first());
  EXPECT_TRUE(make("mixed-pow2", Role::activation, 4, {{"with_zero", "false"}})->pads_first());
  EXPECT_FALSE(make("mixed-uniform", Role::activation, 4)->pads_first());
}

// --- gradients of the learned numbers: those of y with each rounding's error held constant
// ------------------------------------------------------------------------------------------------------------

struct Learned {
  const char* quantizer;
  const char* parametrization;
  const char* names[2];
  double values[2];
};

class LearnedNumbers : public testing::TestWithParam<Learned> {};

double away(double v) {
  return std::round(v);
}

// The surrogate of round: its value at the base point, slope 1.
struct Surrogate {
  double base;
  double operator()(double v) const { return v + (away(base) - base); }
};

double power_at(double v, double base) {
  return std::exp2(Surrogate{std::log2(base)}(std::log2(v)));
}

double uniform(const std::string& form, const double* p, const double* base, double x) {
  const auto grid = [&](const double* q, double& d, double& top) {
    const auto steps = [&](double b, double b0) { return std::exp2(Surrogate{b0}(b)-1) - 1; };
    if (form == "d_xmax") {
      d = power_at(q[0], base[0]);
      top = q[1];
    } else if (form == "b_xmax") {
      d = power_at(q[1] / steps(q[0], base[0]), base[1] / steps(base[0], base[0]));
      top = q[1];
    } else if (form == "d_b") {
      d = power_at(q[0], base[0]);
      top = d * steps(q[1], base[1]);
    } else {
      d = power_at(std::exp2(q[1]) / steps(q[0], base[0]), std::exp2(base[1]) / steps(base[0], base[0]));
      top = d * steps(q[0], base[0]);
    }
  };
  double d = 0, top = 0, d0 = 0, top0 = 0;
  grid(p, d, top);
  grid(base, d0, top0);
  const double c0 = x >= top0 ? top0 : (x <= -top0 ? -top0 : x);
  const double c = x >= top0 ? top : (x <= -top0 ? -top : x);
  return d * Surrogate{c0 / d0}(c / d);
}

double powers(const std::string& form, const double* p, const double* base, double x) {
  const auto grid = [&](const double* q, double& lo, double& hi) {
    const auto codes = [&](double b, double b0) { return std::exp2(Surrogate{b0}(b)-1); };
    if (form == "xmin_xmax") {
      lo = power_at(q[0], base[0]);
      hi = power_at(q[1], base[1]);
    } else if (form == "b_xmax") {
      hi = power_at(q[1], base[1]);
      lo = hi * std::exp2(1 - codes(q[0], base[0]));
    } else if (form == "b_xmin") {
      lo = power_at(q[1], base[1]);
      hi = lo * std::exp2(codes(q[0], base[0]) - 1);
    } else {
      hi = std::exp2(Surrogate{base[1]}(q[1]));
      lo = hi * std::exp2(1 - codes(q[0], base[0]));
    }
  };
  double lo = 0, hi = 0, lo0 = 0, hi0 = 0;
  grid(p, lo, hi);
  grid(base, lo0, hi0);
  const double a = std::abs(x);
  const double level = a < lo0 ? lo : (a >= hi0 ? hi : power_at(a, a));
  return x < 0 ? -level : level;
}

TEST_P(LearnedNumbers, HaveTheGradientsOfTheSurrogate) {
  const Learned& learned = GetParam();
  const std::string form = learned.parametrization;
  const auto quantizer = make(learned.quantizer, Role::weight, 4, {{"parametrization", form}});
  double base[2];
  for (int i = 0; i < 2; ++i) {
    base[i] = static_cast<double>(static_cast<float>(learned.values[i]));
    give(*quantizer, learned.names[i], static_cast<float>(learned.values[i]));
  }
  const Values x = normal_values(300, 1, 7);
  const Values g = normal_values(300, 1, 8);
  const Result result = run(*quantizer, x, g);
  const auto total = [&](const double* p) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto v = static_cast<double>(x[i]);
      const double y = learned.quantizer == std::string("mixed-uniform") ? uniform(form, p, base, v)
                                                                         : powers(form, p, base, v);
      sum += static_cast<double>(g[i]) * y;
    }
    return sum;
  };
  for (int i = 0; i < 2; ++i) {
    constexpr double step = 1e-5;
    double above[2] = {base[0], base[1]};
    double below[2] = {base[0], base[1]};
    above[i] += step;
    below[i] -= step;
    const double slope = (total(above) - total(below)) / (2 * step);
    EXPECT_NEAR(static_cast<double>(result.grads.at(learned.names[i])), slope, 1e-3 * (1 + std::abs(slope)))
        << learned.names[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, LearnedNumbers,
                         testing::Values(Learned{"mixed-uniform", "d_xmax", {"d", "xmax"}, {0.11, 0.9}},
                                         Learned{"mixed-uniform", "b_xmax", {"b", "xmax"}, {3.3, 0.9}},
                                         Learned{"mixed-uniform", "d_b", {"d", "b"}, {0.11, 3.7}},
                                         Learned{"mixed-uniform", "b_range", {"b", "m"}, {3.3, -0.3}},
                                         Learned{"mixed-pow2", "xmin_xmax", {"xmin", "xmax"}, {0.11, 0.9}},
                                         Learned{"mixed-pow2", "b_xmax", {"b", "xmax"}, {3.3, 0.9}},
                                         Learned{"mixed-pow2", "b_xmin", {"b", "xmin"}, {2.7, 0.11}},
                                         Learned{"mixed-pow2", "b_range", {"b", "m"}, {2.7, 0.3}}),
                         [](const auto& tested) {
                           std::string name =
                               std::string(tested.param.quantizer) + "_" + tested.param.parametrization;
                           name.replace(name.find('-'), 1, "_");
                           return name;
                         });

TEST(LearnedBounds, OutsideTheirBoundsHaveNoGradient) {
  const auto quantizer = make("mixed-uniform", Role::weight, 4);
  give(*quantizer, "d", 1);  // at the bound: no longer strictly inside
  give(*quantizer, "xmax", 200);
  const Result result = run(*quantizer, {300, 0.4F});
  EXPECT_EQ(result.y[0], 127);
  EXPECT_EQ(result.grads.at("d"), 0);
  EXPECT_EQ(result.grads.at("xmax"), 0);
}

// --- the projection after an update
// ------------------------------------------------------------------------------------------------------------

TEST(Projection, BringsLearnedNumbersBackWhereTheyHaveAGradient) {
  const auto quantizer = make("mixed-uniform", Role::weight, 4);
  give(*quantizer, "d", -0.25F);
  give(*quantizer, "xmax", -3);
  quantizer->after_update();
  EXPECT_GT(value_of(*quantizer, "d"), 0x1p-8F);
  EXPECT_GT(value_of(*quantizer, "xmax"), 0x1p-8F);
  const Result result = run(*quantizer, {0.0019F, 300});
  EXPECT_NE(result.grads.at("d"), 0);
  EXPECT_NE(result.grads.at("xmax"), 0);
}

TEST(Projection, KeepsTheEndsOfARangeInOrder) {
  for (const auto& [name, low, high] :
       {std::tuple{"mixed-uniform", "d", "xmax"}, {"mixed-pow2", "xmin", "xmax"}}) {
    const auto quantizer = make(name, Role::weight, 4);
    give(*quantizer, low, 0.9F);
    give(*quantizer, high, 0.2F);
    quantizer->after_update();
    EXPECT_FLOAT_EQ(value_of(*quantizer, low), 0.2F - 1e-5F) << name;
    EXPECT_FLOAT_EQ(value_of(*quantizer, high), 0.9F + 1e-5F) << name;
    const float before = value_of(*quantizer, high);
    quantizer->after_update();
    EXPECT_EQ(value_of(*quantizer, high), before) << name << ": once is enough";
  }
}

TEST(Projection, LeavesFixedGridsAndUnknownNumbersAlone) {
  const auto fixed = make("fixed-point", Role::weight, 4);
  fixed->forward(row({1000}));
  fixed->after_update();
  EXPECT_EQ(value_of(*fixed, "delta"), 128);
  const auto unknown = make("mixed-uniform", Role::weight, 4);
  unknown->after_update();
  EXPECT_TRUE(std::isnan(value_of(*unknown, "d")));
  unknown->forward(row({0.7F}));
  EXPECT_EQ(value_of(*unknown, "d"), 0.0625F);
}

TEST(Projection, LimitsGradientsOnlyWhenAsked) {
  for (const bool asked : {false, true}) {
    const auto quantizer = make("mixed-uniform", Role::weight, 4, {{"limit_grad", asked ? "true" : "false"}});
    give(*quantizer, "d", 0.125F);
    give(*quantizer, "xmax", 0.875F);
    quantizer->before_update();  // without gradients
    run(*quantizer, {5, -0.3F}, {8, 1});
    quantizer->before_update();
    EXPECT_EQ(number(*quantizer, "xmax").grad().item(), asked ? 0.125F : 8.0F);
  }
}

TEST(Projection, ReachesEveryQuantizerOfANetwork) {
  Sequential net;
  net.append(std::make_shared<Conv2d>(Conv2dOptions{.in_channels = 2, .out_channels = 3, .kernel = {3, 3}}));
  net.append(std::make_shared<Conv2d>(Conv2dOptions{.in_channels = 3, .out_channels = 2, .kernel = {3, 3}}));
  quantize_network(net, {.weight_quantizer = "mixed-pow2", .activation_quantizer = "mixed-pow2"});
  std::size_t learned = 0;
  for (const NamedTensor& p : net.named_parameters())
    if (p.name.ends_with("xmax")) p.tensor.copy_from(Tensor::full({1}, -1)), ++learned;
  EXPECT_GE(learned, 3U);
  after_update(net);
  for (const NamedTensor& p : net.named_parameters())
    EXPECT_GT(p.name.ends_with("xmax") ? p.tensor.item() : 1.0F, 0) << p.name;
}

}  // namespace
}  // namespace qtrain::quant
