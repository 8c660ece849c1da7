// Quantizers that quantize the padded zeros do that in the same pass: as if the input had been padded first,
// bit for bit, and without a padded copy of the input.
#include <gtest/gtest.h>

#include "engine/ops/convolution.h"
#include "engine/ops/rearrange.h"
#include "quant/registry.h"
#include "tests/engine/support.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::identical;
using testing_support::near;
using testing_support::normal_values;

struct Case {
  std::string name;
  std::string quantizer;
  int bits = 4;
  std::map<std::string, std::string> options{};
  bool in_one_pass = true;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

std::vector<Case> cases() {
  return {
      {"xnor", "xnor", 1},
      {"xnor_triangle", "xnor", 1, {{"grad", "triangle"}}},
      {"xnor_straight", "xnor", 1, {{"grad", "none"}}},
      {"xnor_after_warm_up", "xnor", 1, {{"stable", "1"}}, false},
      {"xnor_prox", "xnor", 1, {{"prox", "0.5"}}, false},
      {"xnor_loss", "xnor", 1, {{"quant_loss", "l2"}}, false},
      {"xnor_by_position", "xnor", 1, {{"scale", "channel"}}, false},
      {"xnor_by_channel", "xnor", 1, {{"scale", "resolution"}}, false},
      {"xnor_float", "xnor", float_bits, {}, false},
      {"pow2", "pow2", 4, {{"with_zero", "false"}}},
      {"pow2_unsigned", "pow2", 3, {{"with_zero", "false"}, {"sign", "false"}, {"m", "1"}}},
      {"pow2_signed_all", "pow2", 3, {{"with_zero", "false"}, {"sign", "true"}, {"fine_grained", "false"}}},
      {"pow2_float", "pow2", float_bits, {{"with_zero", "false"}}, false},
      {"mixed_pow2", "mixed-pow2", 4, {{"with_zero", "false"}, {"sign", "true"}}},
      {"mixed_pow2_widths", "mixed-pow2", 4, {{"with_zero", "false"}, {"parametrization", "b_xmax"}}},
      {"mixed_pow2_exponent", "mixed-pow2", 3, {{"with_zero", "false"}, {"parametrization", "b_range"}}},
      {"lq_nets", "lq-nets", 2, {}, false},
      {"lsq_both_signs", "lsq", 4, {{"half_range", "false"}}},
      {"lsq_fan_scale", "lsq", 2, {{"half_range", "false"}, {"grad_scale", "scale-fan"}}},
      {"lsq_counts_elements", "lsq", 4, {{"half_range", "false"}, {"grad_scale", "element-scale"}}, false},
      {"lsq_scales_clamp", "lsq", 4, {{"half_range", "false"}, {"clamp_grad", "STE-scale"}}, false},
      {"lsq_groups", "lsq", 4, {{"half_range", "false"}, {"groups", "-1"}}, false},
      {"uniform", "uniform", 4, {}, false},  // padded ahead by the layer's own rule
  };
}

struct Image {
  Shape shape;
  Border border;
};

const std::vector<Image> images = {
    {{1, 1, 1, 1}, {{1, 1}, {1, 1}}},
    {{2, 3, 5, 7}, {{1, 1}, {1, 1}}},
    {{3, 20, 4, 9}, {{0, 0}, {1, 1}}},
    {{2, 16, 9, 31}, {{2, 0}, {0, 3}}},
    {{1, 33, 6, 5}, {{0, 2}, {0, 0}}},
    {{4, 7, 17, 16}, {{3, 1}, {2, 4}}},
    {{2, 5, 3, 4}, {}},
};

// Some elements are zeros of both signs.
Tensor input_of(const Shape& shape) {
  std::vector<float> values = normal_values(static_cast<std::size_t>(shape.numel()), 1);
  for (std::size_t i = 0; i < values.size(); i += 5) values[i] = i % 2 == 0 ? 0.0F : -0.0F;
  return Tensor::from_values(shape, values).set_requires_grad(true);
}

struct Outcome {
  Tensor y;
  std::vector<float> kept, grad_x, grad_w;
  std::vector<std::vector<float>> grads, state;
  std::size_t steps = 0;  // recorded ones
  std::size_t bytes_of_x = 0;
};

// Two forwards, as the first may set numbers, and the backward of a convolution of the second's result.
template <class Forward>
Outcome outcome(const Case& c, const Shape& shape, bool training, Forward&& forward) {
  const auto quantizer = make_quantizer(c.quantizer, Role::activation, c.bits, LayerKind::convolution,
                                        c.options, {1, shape[1], 1, 1});
  quantizer->train(training);
  const Tensor x = input_of(shape);
  forward(*quantizer, x);
  const Tensor y = forward(*quantizer, x);
  Outcome o{.y = y.detach()};
  o.steps = Tape::nodes(y).size();
  if (y.producer() != nullptr && !y.producer()->saved().empty())
    o.bytes_of_x = y.producer()->saved()[0]->bytes();
  SavedTensor saved("y");
  saved.save(y);
  o.kept = saved.get().values();
  const Tensor w =
      Tensor::from_values({3, shape[1], 1, 1}, normal_values(static_cast<std::size_t>(3 * shape[1]), 1, 7))
          .set_requires_grad(true);
  const Tensor z = conv2d(y, w, Tensor(), {});
  Tape::backward(z, Tensor::from_values(z.shape(), normal_values(static_cast<std::size_t>(z.numel()), 1, 8)));
  o.grad_x = x.grad().values();
  o.grad_w = w.grad().values();
  for (const Tensor& p : quantizer->parameters())
    o.grads.push_back(p.grad().defined() ? p.grad().values() : std::vector<float>());
  for (const NamedTensor& b : quantizer->named_buffers())
    if (b.tensor.dtype() == DType::f32) o.state.push_back(b.tensor.values());
  return o;
}

class PaddingFirst : public testing::TestWithParam<Case> {};

TEST_P(PaddingFirst, IsAsIfTheInputHadBeenPadded) {
  for (const bool training : {true, false})
    for (const auto& [shape, border] : images) {
      SCOPED_TRACE(shape.str() + (training ? " in training" : " in evaluation"));
      const Outcome got =
          outcome(GetParam(), shape, training,
                  [&, &border = border](Quantizer& q, const Tensor& x) { return q.forward(x, border); });
      const Outcome want =
          outcome(GetParam(), shape, training, [&, &border = border](Quantizer& q, const Tensor& x) {
            return q.forward(pad2d(x, border.begin, border.end));
          });
      ASSERT_EQ(got.y.shape(), border.around(shape));
      EXPECT_TRUE(identical(got.y.values(), want.y.values()));
      EXPECT_TRUE(identical(got.kept, want.y.values()));  // also where it is made again
      EXPECT_TRUE(identical(got.grad_x, want.grad_x));
      EXPECT_TRUE(identical(got.grad_w, want.grad_w));
      EXPECT_EQ(got.state, want.state);
      ASSERT_EQ(got.grads.size(), want.grads.size());
      for (std::size_t i = 0; i < got.grads.size(); ++i) EXPECT_TRUE(near(got.grads[i], want.grads[i], 1e-5));
    }
}

TEST_P(PaddingFirst, KeepsNothingPadded) {
  if (!GetParam().in_one_pass) return;
  const auto& [shape, border] = images[1];
  const Outcome o = outcome(GetParam(), shape, true, [&, &border = border](Quantizer& q, const Tensor& x) {
    return q.forward(x, border);
  });
  EXPECT_EQ(o.steps, 1U);
  EXPECT_EQ(o.bytes_of_x, static_cast<std::size_t>(shape.numel()) * sizeof(float));
}

INSTANTIATE_TEST_SUITE_P(Quantizers, PaddingFirst, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

// Each border element of mixed-pow2 becomes its smallest level: its gradient has all of the border's.
TEST(PaddedGradient, CountsTheBorder) {
  const auto quantizer = make_quantizer("mixed-pow2", Role::activation, 4, LayerKind::convolution,
                                        {{"with_zero", "false"}, {"sign", "true"}}, {1, 2, 1, 1});
  const Tensor x = Tensor::full({1, 2, 1, 1}, 0.3F).set_requires_grad(true);
  const Border border{{1, 1}, {1, 2}};
  Tensor y = quantizer->forward(x, border);
  quantizer->parameters()[0].set_grad({});
  Tape::backward(y, Tensor::full(y.shape(), 1));
  const float xmin = quantizer->parameters()[0].values()[0];
  const float level = y.values()[0];
  EXPECT_NEAR(quantizer->parameters()[0].grad().values()[0], 22 * level / xmin, 1e-4F);
}

TEST(PaddedQuantizer, RefusesWhatPad2dRefuses) {
  const auto quantizer =
      make_quantizer("xnor", Role::activation, 1, LayerKind::convolution, {}, {1, 1, 1, 1});
  const Border one{{1, 1}, {1, 1}};
  EXPECT_THROW(quantizer->forward(Tensor::full({2, 3}, 1), one), ShapeError);
  EXPECT_THROW(quantizer->forward(Tensor::full({1, 1, 2, 2}, 1), Border{{-1, 0}, {0, 0}}), ValueError);
  EXPECT_THROW(quantizer->forward(Tensor::full({1, 1, 2, 2}, 1), Border{{INT64_MAX, 0}, {1, 0}}), ValueError);
  EXPECT_THROW(quantizer->forward(Tensor(), one), ValueError);
}

}  // namespace
}  // namespace qtrain::quant
