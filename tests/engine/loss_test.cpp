#include "engine/ops/loss.h"

#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

Tensor labels_of(const std::vector<std::int64_t>& labels, Device device = {}) {
  return Tensor::from_values<std::int64_t>({static_cast<std::int64_t>(labels.size())}, labels, device);
}

double cross_entropy(const std::vector<float>& z, const std::vector<std::int64_t>& labels, double smoothing) {
  const std::size_t classes = z.size() / labels.size();
  double loss = 0;
  for (std::size_t r = 0; r < labels.size(); ++r) {
    const auto at = [&](std::size_t k) { return static_cast<double>(z[r * classes + k]); };
    double top = at(0);
    for (std::size_t k = 1; k < classes; ++k) top = std::max(top, at(k));
    double total = 0;
    for (std::size_t k = 0; k < classes; ++k) total += std::exp(at(k) - top);
    for (std::size_t k = 0; k < classes; ++k) {
      const double q = (k == static_cast<std::size_t>(labels[r]) ? 1 - smoothing : 0.0) +
                       smoothing / static_cast<double>(classes);
      loss -= q * (at(k) - top - std::log(total));
    }
  }
  return loss / static_cast<double>(labels.size());
}

TEST(CrossEntropy, EqualsItsDefinition) {
  const std::vector<std::int64_t> labels{0, 9, 3, 3, 7};
  for (const Device device : available_devices())
    for (const double spread : {0.0, 1.0, 30.0, 1e4})
      for (const double smoothing : {0.0, 0.1, 1.0}) {
        const auto z = random_values(50, 1, {-spread, spread + 1e-3});
        const float loss = softmax_cross_entropy(Tensor::from_values({5, 10}, z, device),
                                                 labels_of(labels, device), static_cast<float>(smoothing))
                               .item();
        const double want = cross_entropy(z, labels, smoothing);
        EXPECT_NEAR(static_cast<double>(loss), want, 2e-6 * std::max(1.0, std::abs(want)))
            << spread << " " << smoothing;
      }
}

TEST(CrossEntropy, ManyRowsAndClasses) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 300; ++i) labels.push_back(i * 7 % 1000);
  const auto z = random_values(300'000, 1, {-5, 5});
  EXPECT_NEAR(static_cast<double>(
                  softmax_cross_entropy(Tensor::from_values({300, 1000}, z), labels_of(labels)).item()),
              cross_entropy(z, labels, 0), 1e-5);
}

TEST(CrossEntropy, PassesTheGradientCheck) {
  for (const float smoothing : {0.0F, 0.1F, 1.0F}) {
    const auto loss = [&](const std::vector<Tensor>& in) {
      return softmax_cross_entropy(in[0], labels_of({2, 0, 4, 1}, in[0].device()), smoothing);
    };
    EXPECT_TRUE(check_gradients(loss, {{"logits", {4, 5}, {-2, 2}}}));
    EXPECT_TRUE(check_gradients(loss, {{"logits", {4, 7}, {900, 902}}}, {.step = 0.05, .tolerance = 5e-3}));
  }
}

MixedLabels mixed_labels(const std::vector<std::int64_t>& first, const std::vector<std::int64_t>& partner,
                         float lambda, Device device = {}) {
  return {labels_of(first, device), labels_of(partner, device), Tensor::full({1}, lambda, device)};
}

TEST(MixedCrossEntropy, IsTheWeightedMeanOfBothLosses) {
  const std::vector<std::int64_t> first{0, 9, 3, 3, 7};
  const std::vector<std::int64_t> partner{7, 3, 3, 9, 0};
  const auto z = random_values(50, 1, {-4, 4});
  for (const Device device : available_devices())
    for (const float lambda : {0.0F, 0.3F, 1.0F})
      for (const double smoothing : {0.0, 0.1, 1.0}) {
        const double want = static_cast<double>(lambda) * cross_entropy(z, first, smoothing) +
                            static_cast<double>(1 - lambda) * cross_entropy(z, partner, smoothing);
        const Tensor loss = softmax_cross_entropy(Tensor::from_values({5, 10}, z, device),
                                                  mixed_labels(first, partner, lambda, device),
                                                  static_cast<float>(smoothing));
        EXPECT_NEAR(static_cast<double>(loss.item()), want, 4e-6) << lambda << " " << smoothing;
      }
}

TEST(MixedCrossEntropy, PassesTheGradientCheck) {
  for (const float smoothing : {0.0F, 0.1F})
    for (const float lambda : {0.0F, 0.25F, 1.0F}) {
      const auto loss = [&](const std::vector<Tensor>& in) {
        return softmax_cross_entropy(in[0], mixed_labels({2, 0, 4, 1}, {1, 4, 4, 2}, lambda, in[0].device()),
                                     smoothing);
      };
      EXPECT_TRUE(check_gradients(loss, {{"logits", {4, 5}, {-2, 2}}}));
    }
}

TEST(MixedCrossEntropy, WithOneLabelItIsThePlainOneBitForBit) {
  const auto run = [](const auto& labels, float smoothing) {
    Tensor z = Tensor::from_values({4, 5}, random_values(20, 3, {-3, 3})).set_requires_grad(true);
    const Tensor loss = softmax_cross_entropy(z, labels, smoothing);
    Tape::backward(loss);
    std::vector<float> result = z.grad().values();
    result.push_back(loss.item());
    return result;
  };
  for (const float smoothing : {0.0F, 0.1F})
    EXPECT_EQ(run(mixed_labels({2, 0, 4, 1}, {1, 4, 4, 2}, 1), smoothing),
              run(labels_of({2, 0, 4, 1}), smoothing));
}

TEST(CrossEntropy, SaturatedLogitsGiveExactGradients) {
  Tensor z = Tensor::from_values({1, 3}, {1e30F, 0, -1e30F}).set_requires_grad(true);
  const Tensor right = softmax_cross_entropy(z, labels_of({0}));
  EXPECT_EQ(right.item(), 0.0F);
  Tape::backward(softmax_cross_entropy(z, labels_of({2})));
  EXPECT_EQ(z.grad().values(), (std::vector<float>{1, 0, -1}));
}

TEST(CrossEntropy, NaNIsNotHidden) {
  for (std::size_t place = 0; place < 3; ++place) {
    std::vector<float> z{1, 2, 3};
    z[place] = NAN;
    EXPECT_TRUE(std::isnan(softmax_cross_entropy(Tensor::from_values({1, 3}, z), labels_of({1})).item()));
  }
}

TEST(CountTopK, CountsRowsAndBreaksTiesByClass) {
  for (const Device device : available_devices()) {
    const Tensor z = Tensor::from_values({4, 3}, {1, 2, 3, 3, 2, 1, 5, 5, 5, NAN, 1, 0}, device);
    const auto count = [&](const std::vector<std::int64_t>& labels, std::int64_t k) {
      return count_top_k(z, labels_of(labels, device), k).item();
    };
    EXPECT_EQ(count({2, 0, 0, 1}, 1), 4.0F) << "a tie goes to the lower class, NaN never wins";
    EXPECT_EQ(count({2, 0, 1, 0}, 1), 2.0F);
    EXPECT_EQ(count({1, 1, 1, 2}, 2), 4.0F);
    EXPECT_EQ(count({0, 2, 2, 0}, 2), 0.0F);
    EXPECT_EQ(count({0, 2, 2, 0}, 3), 3.0F) << "a NaN score is never right";
    EXPECT_EQ(count({0, 2, 2, 1}, 100), 4.0F);
    EXPECT_EQ(count_top_k(z, labels_of({0, 0, 0, 0}, device), 1).shape(), (Shape{1}));
  }
}

}  // namespace
}  // namespace qtrain
