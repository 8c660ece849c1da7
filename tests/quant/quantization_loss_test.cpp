// The losses between a value and its quantized form: values, and gradients against difference quotients.
#include "quant/quantization_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/autograd/tape.h"
#include "engine/core/error.h"
#include "engine/core/rng.h"

namespace qtrain::quant {
namespace {

using Values = std::vector<float>;

constexpr QuantizationLoss kinds[] = {QuantizationLoss::l1, QuantizationLoss::l2, QuantizationLoss::qdl};

Values random_values(std::size_t count, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::user);
  Values values(count);
  for (float& v : values) v = static_cast<float>(random.normal());
  return values;
}

// The definition, in double.
double loss_of(QuantizationLoss kind, const std::vector<double>& x, const std::vector<double>& y) {
  double error = 0;
  double xy = 0;
  double yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = x[i] - y[i];
    error += kind == QuantizationLoss::l1 ? std::abs(d) : d * d;
    xy += x[i] * y[i];
    yy += y[i] * y[i];
  }
  if (kind == QuantizationLoss::qdl) return yy == 0 ? 0 : std::abs(xy / yy - 1);
  return error / static_cast<double>(x.size());
}

std::vector<double> wide(const Values& values) {
  return {values.begin(), values.end()};
}

float value_of(QuantizationLoss kind, const Values& x, const Values& y) {
  const Shape shape{static_cast<std::int64_t>(x.size())};
  return quantization_loss(kind, Tensor::from_values(shape, x), Tensor::from_values(shape, y)).item();
}

TEST(QuantizationLoss, IsWhatItsFormulaSays) {
  for (const QuantizationLoss kind : kinds)
    for (const std::size_t count : {1U, 7U, 64U, 8193U, 50021U}) {
      const Values x = random_values(count, 1);
      const Values y = random_values(count, 2);
      const double expected = loss_of(kind, wide(x), wide(y));
      EXPECT_NEAR(static_cast<double>(value_of(kind, x, y)), expected, 2e-6 * expected + 1e-6) << count;
    }
}

TEST(QuantizationLoss, GradientsAreDerivatives) {
  constexpr std::size_t count = 37;
  for (const QuantizationLoss kind : kinds)
    for (const float sign : {1.0F, -1.0F}) {  // both sides of |r - 1|
      const Values x = random_values(count, 1);
      Values y = x;
      const Values noise = random_values(count, 2);
      for (std::size_t i = 0; i < count; ++i) y[i] = y[i] * (1 + 0.3F * sign) + 0.1F * noise[i];
      const Shape shape{static_cast<std::int64_t>(count)};
      const Tensor leaves[] = {Tensor::from_values(shape, x).set_requires_grad(true),
                               Tensor::from_values(shape, y).set_requires_grad(true)};
      const Tensor loss = quantization_loss(kind, leaves[0], leaves[1]);
      Tape::backward(loss, Tensor::full(loss.shape(), 2.5F));
      for (const std::size_t side : {0U, 1U})
        for (std::size_t i = 0; i < count; ++i) {
          double ends[2];
          for (const int end : {0, 1}) {
            std::vector<double> sides[] = {wide(x), wide(y)};
            sides[side][i] += end == 0 ? -1e-6 : 1e-6;
            ends[end] = loss_of(kind, sides[0], sides[1]);
          }
          const double slope = 2.5 * (ends[1] - ends[0]) / 2e-6;
          EXPECT_NEAR(static_cast<double>(leaves[side].grad().values()[i]), slope,
                      1e-5 + 1e-4 * std::abs(slope))
              << static_cast<int>(kind) << " " << side << " " << i;
        }
    }
}

TEST(QuantizationLoss, OnlyOneSideMayNeedAGradient) {
  const Tensor x = Tensor::from_values({2}, Values{1, 2});
  const Tensor y = Tensor::from_values({2}, Values{1.5F, 1}).set_requires_grad(true);
  Tape::backward(quantization_loss(QuantizationLoss::l2, x, y));
  EXPECT_EQ(y.grad().values(), (Values{0.5F, -1}));
  EXPECT_FALSE(x.grad().defined());
}

TEST(QuantizationLoss, OfEqualTensorsIsZero) {
  const Values x = random_values(1000, 1);
  for (const QuantizationLoss kind : kinds) EXPECT_NEAR(value_of(kind, x, x), 0, 1e-6F);
}

TEST(QuantizationLoss, OfAnAllZeroResultIsFinite) {
  const Tensor x = Tensor::from_values({2}, Values{1, -2}).set_requires_grad(true);
  const Tensor y = Tensor::zeros({2}).set_requires_grad(true);
  const Tensor loss = quantization_loss(QuantizationLoss::qdl, x, y);
  EXPECT_EQ(loss.item(), 0);
  Tape::backward(loss);
  EXPECT_EQ(x.grad().values(), (Values{0, 0}));
  EXPECT_EQ(y.grad().values(), (Values{0, 0}));
}

TEST(QuantizationLoss, NotANumberStaysVisible) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const QuantizationLoss kind : kinds) {
    EXPECT_TRUE(std::isnan(value_of(kind, {1, nan}, {1, 2}))) << static_cast<int>(kind);
    EXPECT_TRUE(std::isnan(value_of(kind, {1, 2}, {1, nan}))) << static_cast<int>(kind);
  }
}

TEST(QuantizationLoss, RefusesWhatDoesntFit) {
  EXPECT_THROW(quantization_loss(QuantizationLoss::l1, Tensor::zeros({2}), Tensor::zeros({3})), ShapeError);
  EXPECT_THROW(quantization_loss(QuantizationLoss::l1, Tensor(), Tensor::zeros({3})), Error);
  EXPECT_THROW(parse_quantization_loss("l3"), ValueError);
  EXPECT_EQ(parse_quantization_loss("qdl"), QuantizationLoss::qdl);
  EXPECT_EQ(parse_quantization_loss("none"), QuantizationLoss::none);
}

}  // namespace
}  // namespace qtrain::quant
