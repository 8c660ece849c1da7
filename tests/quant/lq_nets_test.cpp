// What is particular to lq-nets and not in its golden cases: every width against a plain implementation in
// double, normalization without a normalized copy, state, and what it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/ops/rearrange.h"
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
  return make_quantizer("lq-nets", role, bits, LayerKind::convolution, options, shape);
}

Tensor buffer(Quantizer& quantizer, const std::string& name) {
  for (const NamedTensor& t : quantizer.named_buffers())
    if (t.name == name) return t.tensor;
  return {};
}

void expect_near(const Values& a, const Values& b, double tolerance, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], tolerance) << what << " " << i;
}

// --- against a plain implementation
// ----------------------------------------------------------------------------------------------

struct Step {
  Values y;
  Values basis;
};

// One training step of one group, from the formulas.
Step plain_step(const Values& x, const Values& basis, bool half_range, bool ridge) {
  const std::size_t bits = basis.size();
  struct Level {
    double value;
    std::vector<double> code;
  };
  std::vector<Level> levels;
  for (std::size_t c = 0; c < std::size_t{1} << bits; ++c) {
    Level level{0, {}};
    for (std::size_t j = 0; j < bits; ++j) {
      level.code.push_back((c >> j & 1) != 0 ? 1 : (half_range ? 0 : -1));
      level.value += level.code[j] * static_cast<double>(basis[j]);
    }
    levels.push_back(level);
  }
  std::ranges::stable_sort(levels, {}, &Level::value);
  std::vector<std::vector<double>> a(bits, std::vector<double>(bits + 1));  // the last column: r
  Step step;
  for (const float v : x) {
    std::size_t i = 0;
    while (i + 1 < levels.size() && static_cast<double>(v) > (levels[i].value + levels[i + 1].value) / 2) ++i;
    step.y.push_back(static_cast<float>(levels[i].value));
    for (std::size_t j = 0; j < bits; ++j) {
      for (std::size_t k = 0; k < bits; ++k) a[j][k] += levels[i].code[j] * levels[i].code[k];
      a[j][bits] += levels[i].code[j] * static_cast<double>(v);
    }
  }
  for (std::size_t j = 0; j < bits; ++j) {
    if (ridge) a[j][bits] += 1e-4 * static_cast<double>(basis[j]);
    if (ridge) a[j][j] = (a[j][j] + 1e-4) * 1.000001;
    if (!ridge && a[j][j] == 0) a[j][j] = 1e-5;
  }
  for (std::size_t p = 0; p < bits; ++p)  // Gauss-Jordan
    for (std::size_t row = 0; row < bits; ++row) {
      if (row == p) continue;
      const double factor = a[row][p] / a[p][p];
      for (std::size_t k = p; k <= bits; ++k) a[row][k] -= factor * a[p][k];
    }
  for (std::size_t j = 0; j < bits; ++j)
    step.basis.push_back(
        static_cast<float>(0.9 * static_cast<double>(basis[j]) + 0.1 * a[j][bits] / a[j][j]));
  return step;
}

TEST(LqNets, EveryWidthIsThePlainFormula) {
  for (const Role role : {Role::weight, Role::activation})
    for (const bool half_range : {false, true})
      for (int bits = 1; bits <= 8; ++bits) {
        const std::string what = std::string(name_of(role)) + (half_range ? " half, " : " full, ") +
                                 std::to_string(bits) + " bits";
        const auto quantizer = make(role, bits, {{"half_range", half_range ? "true" : "false"}});
        Values basis;  // neither ascending nor powers of 2
        for (int j = 0; j < bits; ++j)
          basis.push_back(1.7F * std::ldexp(1.0F, -((j + 1) % bits)) + 0.01F * static_cast<float>(j));
        buffer(*quantizer, "basis").copy_from(Tensor::from_values({bits, 1}, basis));
        const Values x = normal_values(20000, 1.5, static_cast<std::uint64_t>(bits));
        const Values y = quantizer->forward(Tensor::from_values({20000, 1}, x)).values();
        const Step expected = plain_step(x, basis, half_range, role == Role::weight);
        // A value on a threshold to float32 may fall to either side.
        std::size_t different = 0;
        for (std::size_t i = 0; i < y.size(); ++i) different += std::abs(y[i] - expected.y[i]) > 1e-5F;
        EXPECT_LE(different, 3U) << what;
        expect_near(buffer(*quantizer, "basis").values(), expected.basis, 2e-4, what);
      }
}

// --- normalization
// ----------------------------------------------------------------------------------------------

// Samples and ranges of channels at once: the normalization is nothing but another scale of each sample.
TEST(LqNets, NormalizesSamplesAsIfTheyHadBeenDividedBefore) {
  const Shape shape{3, 4, 5, 5};
  Values x = normal_values(300, 1);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::abs(x[i]) * static_cast<float>(1 + i / 100 * 7);
  for (const std::string adaptive : {"mean", "var"}) {
    Values divided = x;
    Values by;
    for (std::size_t n = 0; n < 3; ++n) {
      double mean = 0;
      double squares = 0;
      for (std::size_t i = 0; i < 100; ++i) mean += static_cast<double>(x[100 * n + i]) / 100;
      for (std::size_t i = 0; i < 100; ++i)
        squares += std::pow(static_cast<double>(x[100 * n + i]) - mean, 2);
      by.push_back(static_cast<float>((adaptive == "mean" ? mean : std::sqrt(squares / 99)) + 1e-5));
      for (std::size_t i = 0; i < 100; ++i) divided[100 * n + i] /= by[n];
    }
    const Texts two_groups{{"groups", "2"}};
    const auto plain = make(Role::activation, 3, two_groups, {1, 4, 1, 1});
    Values expected = plain->forward(Tensor::from_values(shape, divided)).values();
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] *= by[i / 100];
    const auto adapted = make(Role::activation, 3, {{"groups", "2"}, {"adaptive", adaptive}}, {1, 4, 1, 1});
    expect_near(adapted->forward(Tensor::from_values(shape, x)).values(), expected, 1e-4, adaptive);
    expect_near(buffer(*adapted, "basis").values(), buffer(*plain, "basis").values(), 1e-5, adaptive);
  }
}

// The reference divides by a mean that may be 0 or negative.
TEST(LqNets, AnInputWithoutAPositiveMeanStaysAsItIs) {
  const Tensor x = Tensor::from_values({2, 4}, {-1, -2, 0.5F, 1, 3, -3, 2, -2});
  const auto plain = make(Role::activation, 2);
  const auto adapted = make(Role::activation, 2, {{"adaptive", "mean"}});
  EXPECT_EQ(adapted->forward(x).values(), plain->forward(x).values());
}

// --- the basis
// ----------------------------------------------------------------------------------------------

TEST(LqNets, StartsFromThePaperOfItsLayer) {
  const auto weight = make(Role::weight, 2, {}, {16, 16, 3, 3});
  EXPECT_EQ(buffer(*weight, "basis").shape(), (Shape{2, 16}));
  EXPECT_FLOAT_EQ(buffer(*weight, "basis").values()[0], 0.6745F * std::sqrt(2.0F / 144) / 2);
  EXPECT_FLOAT_EQ(buffer(*weight, "basis").values()[31], 0.6745F * std::sqrt(2.0F / 144));
  const auto input = make(Role::activation, 2, {}, {1, 16, 1, 1});
  EXPECT_EQ(buffer(*input, "basis").shape(), (Shape{2, 1}));
  EXPECT_FLOAT_EQ(buffer(*input, "basis").values()[1], 1.349F);
}

TEST(LqNets, TiedLevelsKeepTheOrderOfTheirCodes) {
  const auto quantizer = make(Role::activation, 2);
  const Tensor basis = buffer(*quantizer, "basis");
  basis.copy_from(Tensor::from_values({2, 1}, {1.0F, 1.0F}));
  quantizer->forward(Tensor::from_values({3, 1}, {0.9F, 1.4F, 2.3F}));  // codes 01, 10, 11
  // A = {2 1; 1 2}, r = {3.2, 3.7}: the fit is {0.9, 1.4}
  expect_near(basis.values(), {0.99F, 1.04F}, 1e-6, "basis");
}

TEST(LqNets, ASingularFitKeepsTheBasis) {
  const auto quantizer = make(Role::activation, 2);
  const Values before = buffer(*quantizer, "basis").values();
  quantizer->forward(Tensor::from_values({4, 1}, {0, 5, 6, 0}));  // codes 00 and 11 alone
  EXPECT_EQ(buffer(*quantizer, "basis").values(), before);
  const float infinity = std::numeric_limits<float>::infinity();
  quantizer->forward(Tensor::from_values({4, 1}, {0, infinity, 1, 0.7F}));
  EXPECT_EQ(buffer(*quantizer, "basis").values(), before);
}

TEST(LqNets, GroupsAreFittedEachForItself) {
  const auto quantizer = make(Role::weight, 2, {{"groups", "-1"}}, {2, 3, 2, 2});
  EXPECT_EQ(buffer(*quantizer, "basis").shape(), (Shape{2, 6}));
  Values x = normal_values(24, 1);
  const Tensor y = quantizer->forward(Tensor::from_values({2, 3, 2, 2}, x));
  EXPECT_EQ(y.shape(), (Shape{2, 3, 2, 2}));
  const Values basis = buffer(*quantizer, "basis").values();
  const auto one = make(Role::weight, 2, {}, {1, 3, 2, 2});  // the same fan
  one->forward(Tensor::from_values({1, 1, 2, 2}, Values(x.begin() + 8, x.begin() + 12)));
  expect_near({basis[2], basis[8]}, buffer(*one, "basis").values(), 1e-6, "third kernel");
}

// --- training and evaluation
// ----------------------------------------------------------------------------------------------

TEST(LqNets, EvaluationQuantizesFromTheStartAndChangesNothing) {
  for (const Role role : {Role::weight, Role::activation}) {
    const auto quantizer = make(role, 2, {{"custom_update", "true"}});
    quantizer->evaluate();
    const Values before = buffer(*quantizer, "basis").values();
    Tensor x = Tensor::from_values({100, 1}, normal_values(100, 1));
    x.set_requires_grad(true);
    const Tensor y = quantizer->forward(x);
    Values levels = y.values();
    std::ranges::sort(levels);
    levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
    EXPECT_LE(levels.size(), 4U);
    Tape::backward(y, Tensor::full({100, 1}, 1));  // works in evaluation, too
    EXPECT_EQ(buffer(*quantizer, "basis").values(), before);
    EXPECT_EQ(*buffer(*quantizer, "forwards").data<std::int64_t>(), 0);
  }
}

TEST(LqNets, CustomUpdateIsTheMeanOverTrainingForwards) {
  const auto quantizer = make(Role::activation, 1, {{"custom_update", "true"}});
  const Tensor basis = buffer(*quantizer, "basis");
  const auto mean_of_ones = [&](const Values& x) {
    const float threshold = basis.values()[0] / 2;
    double sum = 0;
    int count = 0;
    for (const float v : x)
      if (v > threshold) sum += static_cast<double>(v), ++count;
    return sum / count;
  };
  double expected = 0;
  for (int t = 0; t < 3; ++t) {
    const Values x = normal_values(200, 2, static_cast<std::uint64_t>(t) + 5);
    expected = (expected * t + mean_of_ones(x)) / (t + 1);
    quantizer->forward(Tensor::from_values({200, 1}, x));
    EXPECT_NEAR(basis.values()[0], expected, 1e-5) << t;
    quantizer->evaluate();
    quantizer->forward(Tensor::from_values({200, 1}, x));
    quantizer->train();
  }
  EXPECT_EQ(*buffer(*quantizer, "forwards").data<std::int64_t>(), 3);
}

TEST(LqNets, WarmUpLeavesInputAndBasisAlone) {
  const auto quantizer = make(Role::activation, 2, {{"stable", "2"}});
  const Values before = buffer(*quantizer, "basis").values();
  const Tensor x = Tensor::from_values({50, 1}, normal_values(50, 1));
  for (int t = 0; t < 2; ++t) EXPECT_EQ(quantizer->forward(x).values(), x.values());
  EXPECT_EQ(buffer(*quantizer, "basis").values(), before);
  EXPECT_NE(quantizer->forward(x).values(), x.values());
  EXPECT_NE(buffer(*quantizer, "basis").values(), before);
}

// Backward makes its own copy of what the forward computed, although the basis has moved on.
TEST(LqNets, BackwardBelongsToTheBasisOfItsForward) {
  const auto quantizer = make(Role::activation, 1);
  buffer(*quantizer, "basis").copy_from(Tensor::from_values({1, 1}, {2.0F}));
  Tensor x = Tensor::from_values({3, 1}, {0.5F, 1.9F, 2.0F});
  x.set_requires_grad(true);
  const Tensor y = quantizer->forward(x);
  EXPECT_LT(buffer(*quantizer, "basis").values()[0], 2.0F);
  Tape::backward(y, Tensor::full({3, 1}, 1));
  EXPECT_EQ(x.grad().values(), (Values{1, 1, 0}));
}

// --- widths
// ----------------------------------------------------------------------------------------------

TEST(LqNets, AnotherWidthStartsItsBasisAnew) {
  const auto quantizer = make(Role::weight, 4, {}, {4, 3, 3, 3});
  quantizer->forward(Tensor::from_values({4, 3, 3, 3}, normal_values(108, 0.2)));
  quantizer->set_bits(2);
  EXPECT_EQ(buffer(*quantizer, "basis").shape(), (Shape{2, 4}));
  EXPECT_EQ(buffer(*quantizer, "basis").values(),
            buffer(*make(Role::weight, 2, {}, {4, 3, 3, 3}), "basis").values());
  EXPECT_THROW(quantizer->set_bits(9), ValueError);
  EXPECT_EQ(quantizer->bits(), 2);
  quantizer->set_bits(32);
  EXPECT_TRUE(quantizer->named_buffers().empty());
  quantizer->set_bits(3);
  EXPECT_EQ(buffer(*quantizer, "basis").shape(), (Shape{3, 4}));
}

TEST(LqNets, RefusesWhatABasisCantBe) {
  for (const char* levels : {"3", "6", "512"})
    expect_refused([&] { make(Role::weight, 16, {{"levels", levels}}); }, "a power of 2");
  for (const int bits : {9, 16, 31}) expect_refused([&] { make(Role::activation, bits); }, "1 to 8 bits");
  for (const char* scale : {"-0.1", "1.5"})
    expect_refused([&] { make(Role::activation, 2, {{"scale", scale}}); }, "'scale'");
  EXPECT_EQ(buffer(*make(Role::weight, 4, {{"levels", "8"}}), "basis").dim(0), 3);
}

// Where it doesn't pad first, zeros around the images change neither the other values nor the basis, and stay
// 0.
TEST(LqNets, PadsFirstWhereZerosMatter) {
  const Tensor x = Tensor::from_values({2, 3, 5, 4}, normal_values(120, 1));
  for (const Values& first :
       {Values{0.3F, 0.7F}, Values{-0.3F, 0.7F}, Values{-0.5F, -0.2F}, Values{0, 0.4F}}) {
    const auto plain = make(Role::activation, 2);
    const auto padded = make(Role::activation, 2);
    EXPECT_FALSE(plain->pads_first());
    for (const auto& quantizer : {plain, padded})
      buffer(*quantizer, "basis").copy_from(Tensor::from_values({2, 1}, first));
    EXPECT_EQ(pad2d(plain->forward(x), {1, 1}, {1, 1}).values(),
              padded->forward(pad2d(x, {1, 1}, {1, 1})).values());
    for (std::size_t i = 0; i < first.size(); ++i)
      EXPECT_NEAR(buffer(*plain, "basis").values()[i], buffer(*padded, "basis").values()[i], 1e-6F);
  }
  for (const Texts& options : {Texts{{"adaptive", "mean"}}, Texts{{"adaptive", "min"}}, Texts{{"scale", "0"}},
                               Texts{{"half_range", "false"}}}) {
    EXPECT_TRUE(make(Role::activation, 2, options)->pads_first()) << options.begin()->first;
    Texts after = options;
    after["padding_after_quant"] = "true";
    EXPECT_FALSE(make(Role::activation, 2, after)->pads_first());
  }
}

}  // namespace
}  // namespace qtrain::quant
