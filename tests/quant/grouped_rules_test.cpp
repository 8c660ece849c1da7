// The rules around a quantizer's own math: normalization, gamma, restore, warm-up, prox and the loss.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/core/error.h"
#include "tests/quant/halves.h"

namespace qtrain::quant {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

// --- normalization, gamma and restore
// ------------------------------------------------------------------------------------

struct Norm {
  std::string groups;
  std::string norm_groups;
  std::size_t runs;  // that are normalized
};

class Normalization : public testing::TestWithParam<Norm> {
 protected:
  std::shared_ptr<Halves> quantizer(std::map<std::string, std::string> options) const {
    options["groups"] = GetParam().groups;
    options["norm_groups"] = GetParam().norm_groups;
    return weight_halves(shape_, options);
  }
  // Of the run that element i belongs to.
  const Moments& moments_around(std::size_t i) const {
    return of_run_[i / (before_.size() / GetParam().runs)];
  }

  const Shape shape_{4, 6, 3, 2};
  const Tensor x_ = normal(shape_, 1, 0.2, 0.1);
  const Tensor g_ = normal(shape_, 2);
  const Values before_ = x_.values();
  const std::vector<Moments> of_run_ = moments(before_, GetParam().runs);
};

TEST_P(Normalization, MapsEachGroupToMeanZeroAndDeviationOne) {
  const Result result = run(*quantizer({{"adaptive", "var-mean"}}), x_, g_);
  for (std::size_t i = 0; i < before_.size(); ++i) {
    const Moments& m = moments_around(i);
    const double normalized = (static_cast<double>(before_[i]) - m.mean) / m.std;
    if (std::abs(std::abs(std::remainder(2 * normalized, 1)) - 0.5) > 1e-4) {
      EXPECT_EQ(result.y[i], halves(normalized)) << i;
    }
    EXPECT_NEAR(static_cast<double>(result.grad_x[i]), static_cast<double>(g_.values()[i]) / m.std, 1e-4)
        << i;
  }
}

TEST_P(Normalization, IsUndoneByRestoreAfterGamma) {
  const auto restoring = quantizer({{"adaptive", "var-mean"}, {"restore", "true"}, {"gamma", "true"}});
  const Tensor gamma = parameter(*restoring, "gamma");
  const Values gammas = normal_values(gamma.numel(), 3);
  gamma.copy_from(Tensor::from_values(gamma.shape(), gammas));
  const Result result = run(*restoring, x_, g_);
  const std::size_t gamma_size = before_.size() / gammas.size();
  std::vector<double> grad_gamma(gammas.size());
  for (std::size_t i = 0; i < before_.size(); ++i) {
    const Moments& m = moments_around(i);
    const auto gain = static_cast<double>(gammas[i / gamma_size]);
    const auto q = static_cast<double>(halves((static_cast<double>(before_[i]) - m.mean) / m.std));
    EXPECT_NEAR(static_cast<double>(result.y[i]), m.std * gain * q + m.mean, 1e-5) << i;
    EXPECT_NEAR(static_cast<double>(result.grad_x[i]), static_cast<double>(g_.values()[i]) * gain, 1e-5) << i;
    grad_gamma[i / gamma_size] += static_cast<double>(g_.values()[i]) * m.std * q;
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

}  // namespace
}  // namespace qtrain::quant
