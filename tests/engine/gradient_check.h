// The gradient check that every op passes: with a random cotangent r, L = sum(y * r) accumulated in double,
// d L / d x by central differences in float32 against Tape::backward, on every available device.
#pragma once

#include <fmt/format.h>

#include <functional>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "tests/engine/support.h"

namespace qtrain::testing_support {

struct GradientInput {
  std::string name;
  Shape shape;
  Range range{};
};

struct GradientOptions {
  double step = 0.02;              // the difference quotient's error is step^2 / 6 times the third derivative
  double tolerance = 2e-3;         // relative to the input's largest gradient
  std::size_t most_elements = 64;  // larger inputs are checked at so many random places
  std::uint64_t seed = 1;
};

using Differentiable = std::function<Tensor(const std::vector<Tensor>&)>;

class GradientCheck {
 public:
  GradientCheck(Differentiable function, const std::vector<GradientInput>& inputs, GradientOptions options,
                Device device)
      : function_(std::move(function)), inputs_(inputs), options_(options), device_(device) {
    for (std::size_t i = 0; i < inputs.size(); ++i)
      values_.push_back(random_values(inputs[i].shape.numel(), options.seed * 1000 + i, inputs[i].range));
  }

  ::testing::AssertionResult run() {
    const std::vector<std::vector<float>> together = gradients([](std::size_t) { return true; });
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (together[i].empty()) return failure(i) << " got no gradient";
      if (const auto verdict = compare(i, together[i]); !verdict) return verdict;
      // An op may skip work when only some inputs need gradients: what is left must not change.
      const auto alone = gradients([i](std::size_t k) { return k == i; });
      for (std::size_t k = 0; k < inputs_.size(); ++k)
        if (k != i && !alone[k].empty()) return failure(k) << " got a gradient that nobody asked for";
      if (const auto same = near(alone[i], together[i], 1e-5); !same)
        return failure(i) << " alone differs from all together: " << same.message();
    }
    return ::testing::AssertionSuccess();
  }

 private:
  ::testing::AssertionResult failure(std::size_t input) const {
    return ::testing::AssertionFailure() << "on " << device_.str() << ", gradient of " << inputs_[input].name;
  }

  std::vector<Tensor> tensors() const {
    std::vector<Tensor> result;
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      result.push_back(Tensor::from_values(inputs_[i].shape, values_[i], device_));
    return result;
  }

  template <class Wanted>
  std::vector<std::vector<float>> gradients(Wanted wanted) {
    std::vector<Tensor> leaves = tensors();
    for (std::size_t i = 0; i < leaves.size(); ++i) leaves[i].set_requires_grad(wanted(i));
    const Tensor y = function_(leaves);
    if (cotangent_.empty()) cotangent_ = random_values(y.numel(), options_.seed * 1000 + 999);
    Tape::backward(y, Tensor::from_values(y.shape(), cotangent_, device_));
    std::vector<std::vector<float>> result;
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const Tensor g = leaves[i].grad();
      EXPECT_TRUE(!g.defined() || g.shape() == leaves[i].shape()) << g.str();
      result.push_back(g.defined() ? g.values() : std::vector<float>{});
    }
    return result;
  }

  double loss() const {
    const NoGradGuard no_grad;
    const std::vector<float> y = function_(tensors()).values();
    double total = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      total += static_cast<double>(y[i]) * static_cast<double>(cotangent_[i]);
    return total;
  }

  double difference_quotient(std::size_t input, std::size_t element) {
    float& x = values_[input][element];
    const float before = x;
    x = static_cast<float>(static_cast<double>(before) + options_.step);
    const double upper = loss();
    const auto upper_x = static_cast<double>(x);
    x = static_cast<float>(static_cast<double>(before) - options_.step);
    const double lower = loss();
    const auto lower_x = static_cast<double>(x);
    x = before;
    return (upper - lower) / (upper_x - lower_x);
  }

  ::testing::AssertionResult compare(std::size_t input, const std::vector<float>& gradient) {
    double largest = 1e-3;
    for (const float g : gradient) largest = std::max(largest, std::abs(static_cast<double>(g)));
    const bool all = gradient.size() <= options_.most_elements;
    const RandomPermutation pick(gradient.size(), options_.seed, input);
    double worst = -1;
    std::string report;
    for (std::size_t k = 0; k < std::min(gradient.size(), options_.most_elements); ++k) {
      const std::size_t element = all ? k : pick(k);
      const double numeric = difference_quotient(input, element);
      const double error = std::abs(static_cast<double>(gradient[element]) - numeric) / largest;
      if (!std::isnan(error) && error <= worst) continue;
      worst = error;
      report = fmt::format(" {} at element {}: {} by the tape, {} by differences (largest {})",
                           inputs_[input].shape.str(), element, gradient[element], numeric, largest);
      if (std::isnan(error)) break;
    }
    if (worst <= options_.tolerance) return ::testing::AssertionSuccess();
    return failure(input) << report;
  }

  Differentiable function_;
  std::vector<GradientInput> inputs_;
  GradientOptions options_;
  Device device_;
  std::vector<std::vector<float>> values_;
  std::vector<float> cotangent_;
};

// EXPECT_TRUE(check_gradients([](const auto& in) { return matmul(in[0], in[1]); }, {{"a", {2, 3}}, {"b", {3,
// 4}}}));
inline ::testing::AssertionResult check_gradients(const Differentiable& function,
                                                  const std::vector<GradientInput>& inputs,
                                                  const GradientOptions& options = {}) {
  for (const Device device : available_devices())
    if (const auto verdict = GradientCheck(function, inputs, options, device).run(); !verdict) return verdict;
  return ::testing::AssertionSuccess();
}

}  // namespace qtrain::testing_support
