#include "engine/ops/batch_norm.h"

#include "engine/ops/activation.h"
#include "engine/ops/arithmetic.h"
#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

const Shape shapes[] = {{4, 16, 3, 3},  {2, 5, 4, 3}, {3, 37, 2, 2}, {2, 64, 5, 5},
                        {2, 130, 2, 1}, {8, 3},       {6, 33},       {2, 1, 2, 2}};

struct Statistics {
  std::vector<double> mean, variance;  // biased
  double count = 0;
};

template <class Visit>
void for_elements(const Shape& s, Visit&& visit) {
  const std::int64_t pixels = s.rank() == 4 ? s[2] * s[3] : 1;
  for (std::int64_t i = 0; i < s.numel(); ++i)
    visit(static_cast<std::size_t>(i), static_cast<std::size_t>(i / pixels % s[1]));
}

Statistics statistics(const Shape& s, const std::vector<float>& x) {
  const auto channels = static_cast<std::size_t>(s[1]);
  Statistics r{std::vector<double>(channels), std::vector<double>(channels),
               static_cast<double>(s.numel()) / static_cast<double>(s[1])};
  for_elements(s, [&](std::size_t i, std::size_t c) { r.mean[c] += static_cast<double>(x[i]) / r.count; });
  for_elements(s, [&](std::size_t i, std::size_t c) {
    r.variance[c] += std::pow(static_cast<double>(x[i]) - r.mean[c], 2) / r.count;
  });
  return r;
}

std::vector<double> normalized(const Shape& s, const std::vector<float>& x, const Statistics& stats,
                               const std::vector<float>& gamma, const std::vector<float>& beta,
                               double epsilon) {
  std::vector<double> y(x.size());
  for_elements(s, [&](std::size_t i, std::size_t c) {
    y[i] = static_cast<double>(gamma[c]) * (static_cast<double>(x[i]) - stats.mean[c]) /
               std::sqrt(stats.variance[c] + epsilon) +
           static_cast<double>(beta[c]);
  });
  return y;
}

struct Fixture {
  Shape shape, channels;
  std::vector<float> x, gamma, beta, residual;
  Fixture(const Shape& s, const Range& range = {})
      : shape(s),
        channels{s[1]},
        x(random_values(s.numel(), 1, range)),
        gamma(random_values(s[1], 2, {0.5, 2})),
        beta(random_values(s[1], 3)),
        residual(random_values(s.numel(), 4)) {}
  BatchNormState state(Device device = {}) const {
    return {Tensor::from_values(channels, gamma, device), Tensor::from_values(channels, beta, device),
            Tensor::full(channels, 0.25F, device), Tensor::full(channels, 2.0F, device)};
  }
  std::vector<double> output(const Statistics& stats, double epsilon, bool with_residual,
                             bool with_relu) const {
    std::vector<double> y = normalized(shape, x, stats, gamma, beta, epsilon);
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (with_residual) y[i] += static_cast<double>(residual[i]);
      if (with_relu) y[i] = std::max(y[i], 0.0);
    }
    return y;
  }
};

TEST(BatchNorm, TrainingEqualsItsFormula) {
  for (const Device device : available_devices())
    for (const Shape& s : shapes) {
      const Fixture f(s);
      const Statistics stats = statistics(s, f.x);
      for (const bool with_residual : {false, true})
        for (const bool with_relu : {false, true}) {
          const BatchNormState state = f.state(device);
          const Tensor y =
              batch_norm_training(Tensor::from_values(s, f.x, device), state,
                                  {.epsilon = 1e-3F, .momentum = 0.3F, .relu = with_relu},
                                  with_residual ? Tensor::from_values(s, f.residual, device) : Tensor());
          EXPECT_TRUE(near(y, f.output(stats, 1e-3, with_residual, with_relu), 5e-6)) << s.str();
          std::vector<double> running_mean, running_variance;
          for (std::size_t c = 0; c < stats.mean.size(); ++c) {
            running_mean.push_back(0.7 * 0.25 + 0.3 * stats.mean[c]);
            running_variance.push_back(0.7 * 2 + 0.3 * stats.variance[c] * stats.count / (stats.count - 1));
          }
          EXPECT_TRUE(near(state.running_mean, running_mean, 1e-6)) << s.str();
          EXPECT_TRUE(near(state.running_variance, running_variance, 1e-6)) << s.str();
        }
    }
}

TEST(BatchNorm, EvaluationUsesRunningStatistics) {
  for (const Device device : available_devices())
    for (const Shape& s : shapes) {
      const Fixture f(s);
      Statistics stats = statistics(s, f.x);
      std::ranges::fill(stats.mean, 0.25);
      std::ranges::fill(stats.variance, 2.0);
      for (const bool with_residual : {false, true})
        for (const bool with_relu : {false, true}) {
          const BatchNormState state = f.state(device);
          const Tensor y =
              batch_norm_evaluation(Tensor::from_values(s, f.x, device), state, {.relu = with_relu},
                                    with_residual ? Tensor::from_values(s, f.residual, device) : Tensor());
          EXPECT_TRUE(near(y, f.output(stats, 1e-5, with_residual, with_relu), 5e-6)) << s.str();
          EXPECT_EQ(state.running_mean.values(), std::vector<float>(f.gamma.size(), 0.25F));
        }
    }
}

// A mean a thousand times the deviation must not eat the digits of the statistics.
TEST(BatchNorm, KeepsItsDigitsAtLargeMeans) {
  for (const Shape& s : {Shape{64, 1, 16, 16}, Shape{16, 3, 32, 32}, Shape{8, 16, 32, 32},
                         Shape{8, 40, 16, 16}, Shape{4096, 2}}) {
    const Fixture f(s, {998.25, 1001.75});  // standard deviation 1.01
    const Statistics stats = statistics(s, f.x);
    const BatchNormState state = f.state();
    const Tensor y = batch_norm_training(Tensor::from_values(s, f.x), state, {.momentum = 1});
    EXPECT_TRUE(near(state.running_mean, stats.mean, 1.5e-7)) << s.str();
    std::vector<double> unbiased;
    for (const double v : stats.variance) unbiased.push_back(v * stats.count / (stats.count - 1));
    EXPECT_TRUE(near(state.running_variance, unbiased, 5e-6)) << s.str();
    EXPECT_TRUE(near(y, f.output(stats, 1e-5, false, false), 5e-5)) << s.str();  // float32 keeps 1000 to 6e-5
  }
}

TEST(BatchNorm, ConstantChannelsGiveBeta) {
  const Shape s{4, 3, 2, 2};
  BatchNormState state{Tensor::full({3}, 2), Tensor::full({3}, 0.5F), Tensor(), Tensor()};
  EXPECT_EQ(batch_norm_training(Tensor::full(s, 7), state).values(), std::vector<float>(48, 0.5F));
}

TEST(BatchNorm, NaNPassesThroughTheRelu) {
  std::vector<float> x = random_values(16, 1);
  x[3] = NAN;
  const BatchNormState state{Tensor::full({2}, 1), Tensor::zeros({2}), Tensor::zeros({2}),
                             Tensor::full({2}, 1)};
  EXPECT_TRUE(std::isnan(
      batch_norm_evaluation(Tensor::from_values({2, 2, 2, 2}, x), state, {.relu = true}).values()[3]));
}

// -- gradients
// --------------------------------------------------------------------------------------------------------

// Inputs whose ReLU never switches within a step: without a residual beta decides (one sign a channel), with
// one the residual does (one sign an element).
std::vector<GradientInput> inputs_of(const Shape& s, bool with_residual, bool with_relu) {
  std::vector<GradientInput> inputs{{"x", s}, {"gamma", {s[1]}, {0.1, 0.2}}, {"beta", {s[1]}}};
  if (with_relu && !with_residual) inputs[2].range = {-2, 2, {0}, 1.2};
  if (with_residual) inputs.push_back({"residual", s, {-3, 3, {0}, 1.8}});
  return inputs;
}

TEST(BatchNorm, TrainingPassesTheGradientCheck) {
  for (const Shape& s : shapes)
    for (const bool with_residual : {false, true})
      for (const bool with_relu : {false, true}) {
        const auto function = [&](const std::vector<Tensor>& in) {
          return batch_norm_training(in[0], {in[1], in[2], {}, {}}, {.epsilon = 0.05F, .relu = with_relu},
                                     with_residual ? in[3] : Tensor());
        };
        EXPECT_TRUE(check_gradients(function, inputs_of(s, with_residual, with_relu),
                                    {.step = 0.01, .tolerance = 3e-3, .most_elements = 12}))
            << s.str() << " residual " << with_residual << " relu " << with_relu;
      }
}

TEST(BatchNorm, EvaluationPassesTheGradientCheck) {
  for (const Shape& s : shapes)
    for (const bool with_residual : {false, true})
      for (const bool with_relu : {false, true}) {
        const auto function = [&](const std::vector<Tensor>& in) {
          const Device device = in[0].device();
          return batch_norm_evaluation(
              in[0], {in[1], in[2], Tensor::full({s[1]}, 0.1F, device), Tensor::full({s[1]}, 0.7F, device)},
              {.relu = with_relu}, with_residual ? in[3] : Tensor());
        };
        EXPECT_TRUE(check_gradients(function, inputs_of(s, with_residual, with_relu),
                                    {.step = 0.02, .tolerance = 1e-3, .most_elements = 12}))
            << s.str() << " residual " << with_residual << " relu " << with_relu;
      }
}

// The fused form against the same thing in steps, with elements on both sides of the ReLU.
TEST(BatchNorm, FusionEqualsItsParts) {
  for (const Shape& s : shapes)
    for (const bool training : {false, true})
      for (const bool with_residual : {false, true}) {
        const Fixture f(s);
        const auto run = [&](bool fused) {
          BatchNormState state = f.state();
          state.gamma.set_requires_grad(true);
          state.beta.set_requires_grad(true);
          Tensor x = Tensor::from_values(s, f.x).set_requires_grad(true);
          Tensor residual = Tensor::from_values(s, f.residual).set_requires_grad(true);
          const auto normalize = [&](bool with_relu, const Tensor& r) {
            return training ? batch_norm_training(x, state, {.relu = with_relu}, r)
                            : batch_norm_evaluation(x, state, {.relu = with_relu}, r);
          };
          Tensor y;
          if (fused)
            y = normalize(true, with_residual ? residual : Tensor());
          else
            y = relu(with_residual ? add(normalize(false, {}), residual) : normalize(false, {}));
          Tape::backward(y, random_tensor(s, 5));
          std::vector<Tensor> results{y.detach(), x.grad(), state.gamma.grad(), state.beta.grad()};
          if (with_residual) results.push_back(residual.grad());
          return results;
        };
        const auto fused = run(true);
        const auto parts = run(false);
        for (std::size_t i = 0; i < fused.size(); ++i)
          EXPECT_TRUE(near(fused[i], parts[i], 1e-6)) << s.str() << " result " << i;
      }
}

}  // namespace
}  // namespace qtrain
