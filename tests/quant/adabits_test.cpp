// What the golden cases of adabits don't show: which clipping level each width uses and trains, that the rest
// is sat's, and what is refused.
#include <gtest/gtest.h>

#include <functional>

#include "engine/core/error.h"
#include "quant/registry.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::expect_refused;

using Values = std::vector<float>;
using Texts = std::map<std::string, std::string>;

std::shared_ptr<Quantizer> make(int bits, const Texts& options = {}) {
  return make_quantizer("adabits", Role::activation, bits, LayerKind::convolution, options);
}

const Values some = {-1, 0.2F, 0.7F, 1.1F, 2.6F, 3.4F, 9};

struct Result {
  Values y;
  Values grad_x;
};

Result run(Quantizer& quantizer) {
  Tensor x = Tensor::from_values({1, 7, 1, 1}, some);
  x.set_requires_grad(true);
  const Tensor y = quantizer.forward(x);
  Tape::backward(y, Tensor::from_values({1, 7, 1, 1}, {1, 2, -1, 3, 1, 2, 0.5F}));
  return {y.values(), x.grad().values()};
}

TEST(Adabits, EachWidthClipsAtItsOwnLevelAsSatDoes) {
  const auto adabits = make(8);
  const Tensor alpha = adabits->parameters()[0];
  ASSERT_EQ(alpha.shape(), (Shape{4}));
  EXPECT_EQ(alpha.values(), (Values{8, 8, 8, 8}));
  const Values levels = {1, 2, -3, 4};
  alpha.copy_from(Tensor::from_values({4}, levels));
  const std::vector<int> widths = {8, 6, 5, 4};
  Values expected(4);
  for (std::size_t k = 0; k < widths.size(); ++k) {
    const auto sat = make_quantizer("sat", Role::activation, widths[k], LayerKind::convolution);
    sat->parameters()[0].copy_from(Tensor::from_values({1}, {levels[k]}));
    const Result of_sat = run(*sat);
    expected[k] = sat->parameters()[0].grad().values()[0];
    EXPECT_NE(expected[k], 0);

    adabits->set_bits(widths[k]);
    const Result result = run(*adabits);
    EXPECT_EQ(result.y, of_sat.y);
    EXPECT_EQ(result.grad_x, of_sat.grad_x);
    // Gradients of the widths add up, each in its own place.
    Values so_far(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(k) + 1);
    so_far.resize(4);
    EXPECT_EQ(alpha.grad().values(), so_far) << widths[k] << " bits";
  }
}

TEST(Adabits, WeightsAreSats) {
  const Tensor w = Tensor::from_values({1, 7}, some);
  for (const int bits : {1, 4, 8, 32}) {
    const auto of = [&](const char* name) {
      return make_quantizer(name, Role::weight, bits, LayerKind::linear, {{"scheme", "centered"}});
    };
    EXPECT_EQ(of("adabits")->forward(w).values(), of("sat")->forward(w).values());
  }
}

TEST(Adabits, RefusesWidthsOutsideTheList) {
  expect_refused([] { make(3); }, "nothing was trained for 3 bits");
  const auto quantizer = make(8);
  expect_refused([&] { quantizer->set_bits(7); }, "one of 8, 6, 5, 4");
  EXPECT_EQ(quantizer->bits(), 8);
  EXPECT_EQ(make(3, {{"bits_list", "5,4,3"}})->parameters()[0].numel(), 3);
  for (const char* list : {"8,8", "0", "40", "8,,4", "", "8,", "four", "8 4"})
    EXPECT_THROW(make(8, {{"bits_list", list}}), ValueError) << list;
}

TEST(Adabits, OtherWidthsUseTheFirstLevelWhereThatIsAskedFor) {
  const auto check_first = [](Quantizer& quantizer) {
    const Tensor alpha = quantizer.parameters()[0];
    alpha.copy_from(Tensor::from_values({4}, {1, 2, 3, 4}));
    EXPECT_EQ(run(quantizer).y.back(), 1);
    const Values grad = alpha.grad().values();
    EXPECT_NE(grad[0], 0);
    EXPECT_EQ((Values{grad.begin() + 1, grad.end()}), (Values{0, 0, 0}));
  };
  check_first(*make(7, {{"outside_list", "first"}}));
  check_first(*make(32, {{"pact_fp", "true"}}));  // allowed by itself: nothing is rounded
  EXPECT_EQ(make(32)->forward(Tensor::from_values({7}, some)).values(), some);
}

TEST(Adabits, OneLevelForAllServesEveryWidth) {
  const auto quantizer = make(3, {{"switch_alpha", "false"}});
  EXPECT_EQ(quantizer->parameters()[0].numel(), 1);
  quantizer->parameters()[0].copy_from(Tensor::from_values({1}, {2}));
  for (const int bits : {1, 7, 8}) {
    quantizer->set_bits(bits);
    EXPECT_EQ(run(*quantizer).y.back(), 2);
  }
}

}  // namespace
}  // namespace qtrain::quant
