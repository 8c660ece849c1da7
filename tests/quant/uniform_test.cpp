// What is particular to uniform and not in its golden cases: where ranges come from, the symmetric levels,
// and the reference's mistakes that it doesn't share.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/core/error.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

std::shared_ptr<Quantizer> make(Role role, int bits, const Texts& options = {}) {
  return make_quantizer("uniform", role, bits, LayerKind::convolution, options);
}

float running(Quantizer& quantizer, const std::string& which) {
  for (const NamedTensor& t : quantizer.named_buffers())
    if (t.name == "running_" + which) return t.tensor.item();
  ADD_FAILURE() << "no running_" << which;
  return 0;
}

Values forward(Quantizer& quantizer, const Shape& shape, const Values& x) {
  return quantizer.forward(Tensor::from_values(shape, x)).values();
}

const Shape two_samples{2, 2};
const Values batch = {-1, 3, -3, 5};  // mean of the minima -2, of the maxima 4

TEST(Uniform, TrainingUsesTheBatchAndMovesTheRunningRange) {
  const auto quantizer = make(Role::activation, 2);
  EXPECT_EQ(forward(*quantizer, two_samples, batch), (Values{-2, 2, -2, 4}));  // levels -2, 0, 2, 4
  EXPECT_FLOAT_EQ(running(*quantizer, "min"), -0.2F);
  EXPECT_FLOAT_EQ(running(*quantizer, "max"), 0.4F);
  forward(*quantizer, two_samples, batch);
  EXPECT_FLOAT_EQ(running(*quantizer, "max"), 0.9F * 0.4F + 0.4F);
  quantizer->evaluate();
  forward(*quantizer, two_samples, batch);
  EXPECT_FLOAT_EQ(running(*quantizer, "max"), 0.9F * 0.4F + 0.4F);
}

TEST(Uniform, TheRunningRangeCanStartAtTheFirstBatch) {
  const auto quantizer = make(Role::activation, 2, {{"start", "first-batch"}});
  forward(*quantizer, two_samples, batch);
  EXPECT_EQ(running(*quantizer, "min"), -2);
  EXPECT_EQ(running(*quantizer, "max"), 4);
  forward(*quantizer, two_samples, {0, 6, 0, 6});
  EXPECT_FLOAT_EQ(running(*quantizer, "min"), 0.9F * -2);
  EXPECT_FLOAT_EQ(running(*quantizer, "max"), 0.9F * 4 + 0.6F);
}

// The reference puts out nearly 0 everywhere.
TEST(Uniform, EvaluationBeforeAnyTrainingTakesTheBatchsRange) {
  const auto quantizer = make(Role::activation, 2);
  quantizer->evaluate();
  EXPECT_EQ(forward(*quantizer, two_samples, batch), (Values{-2, 2, -2, 4}));
  EXPECT_EQ(running(*quantizer, "min"), 0);
  EXPECT_EQ(running(*quantizer, "max"), 0);
  quantizer->load_state_dict({{"running_min", Tensor::zeros({1})}, {"running_max", Tensor::full({1}, 6)}});
  EXPECT_EQ(forward(*quantizer, two_samples, batch), (Values{0, 4, 0, 4}));  // 3 / 2 and 5 / 2: half to even
}

TEST(Uniform, GradientPassesWhereValuesSaturate) {
  const auto quantizer = make(Role::activation, 2);
  Tensor x = Tensor::from_values(two_samples, batch);
  x.set_requires_grad(true);
  const Values g = {1, 2, 3, 4};
  Tape::backward(quantizer->forward(x), Tensor::from_values(two_samples, g));
  EXPECT_EQ(x.grad().values(), g);
}

TEST(Uniform, ReluStaysWhereNothingIsRounded) {
  for (const int bits : {8, 32}) {
    const auto quantizer = make(Role::activation, bits, {{"relu", "true"}});
    Tensor x = Tensor::from_values({1, 4}, {-1, 0, 51, 255});
    x.set_requires_grad(true);
    const Tensor y = quantizer->forward(x);
    EXPECT_EQ(y.values(), (Values{0, 0, 51, 255}));
    Tape::backward(y, Tensor::full({1, 4}, 1));
    EXPECT_EQ(x.grad().values(), (Values{0, 1, 1, 1}));  // at 0 too
  }
}

TEST(Uniform, SymmetricLevelsHaveAZero) {
  const auto weight = make(Role::weight, 3, {{"symmetric", "true"}});
  EXPECT_EQ(forward(*weight, {4}, {-1.4F, 0.1F, 2.4F, 3}), (Values{-1, 0, 2, 3}));  // s = 3 / 3
  EXPECT_EQ(forward(*weight, {4}, {-4, 0.4F, 2.6F, 3.9F}), (Values{-4, 0, 3, 3}));  // s = 4 / 4
  EXPECT_EQ(forward(*weight, {3}, {-2, 0.2F, 2}), (Values{-2, 0, 1.5F}));           // s = 2 / 4
  EXPECT_THROW(make(Role::weight, 1, {{"symmetric", "true"}}), ValueError);
  EXPECT_THROW(weight->set_bits(1), ValueError);
}

TEST(Uniform, ConstantTensorsStay) {
  for (const Role role : all_roles) {
    if (role == Role::output) continue;
    EXPECT_EQ(forward(*make(role, 4), {1, 3}, {0.3F, 0.3F, 0.3F}), (Values{0.3F, 0.3F, 0.3F}));
    EXPECT_EQ(forward(*make(role, 4), {1, 1}, {-7}), Values{-7});
  }
}

TEST(Uniform, ARangeThatIsNotFiniteIsNotRemembered) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto quantizer = make(Role::activation, 2);
  forward(*quantizer, two_samples, batch);
  EXPECT_TRUE(std::isnan(forward(*quantizer, two_samples, {0, inf, 0, 1})[1]));
  forward(*quantizer, two_samples, {std::nanf(""), 0, 0, 1});
  EXPECT_FLOAT_EQ(running(*quantizer, "max"), 0.4F);
  quantizer->evaluate();
  const Values y = forward(*quantizer, two_samples, {-inf, inf, 0, 1});
  EXPECT_FLOAT_EQ(y[0], running(*quantizer, "min"));
  EXPECT_FLOAT_EQ(y[1], running(*quantizer, "max"));
}

TEST(Uniform, RefusesWhatCantBe) {
  EXPECT_THROW(make(Role::activation, 4, {{"momentum", "1.5"}}), ValueError);
  EXPECT_THROW(make(Role::output, 4), ValueError);
  EXPECT_THROW(make(Role::weight, 4)->forward(Tensor::zeros({0})), ShapeError);
}

}  // namespace
}  // namespace qtrain::quant
