#include "engine/ops/activation.h"

#include <limits>

#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

struct Activation {
  std::string name;
  Tensor (*op)(const Tensor&);
  double (*formula)(double);
  std::vector<double> kinks;
  std::vector<std::pair<float, float>> derivatives_at_kinks;  // PyTorch's
};

std::ostream& operator<<(std::ostream& out, const Activation& a) {
  return out << a.name;
}

double clamped(double x, double low, double high) {
  return std::min(std::max(x, low), high);
}
double logistic(double x) {
  return 1 / (1 + std::exp(-x));
}

const Activation activations[] = {
    {"relu",
     [](const Tensor& x) { return relu(x); },
     [](double x) { return std::max(x, 0.0); },
     {0},
     {{0, 0}}},
    {"relu6",
     [](const Tensor& x) { return relu6(x); },
     [](double x) { return clamped(x, 0, 6); },
     {0, 6},
     {{0, 0}, {6, 0}}},
    {"leaky_relu",
     [](const Tensor& x) { return leaky_relu(x, 0.125F); },
     [](double x) { return x > 0 ? x : x / 8; },
     {0},
     {{0, 0.125F}}},
    {"clamp",
     [](const Tensor& x) { return clamp(x, -1, 2); },
     [](double x) { return clamped(x, -1, 2); },
     {-1, 2},
     {{-1, 1}, {2, 1}}},
    {"sigmoid", [](const Tensor& x) { return sigmoid(x); }, logistic, {}, {{0, 0.25F}}},
    {"tanh", [](const Tensor& x) { return tanh(x); }, [](double x) { return std::tanh(x); }, {}, {{0, 1}}},
    {"silu",
     [](const Tensor& x) { return silu(x); },
     [](double x) { return x * logistic(x); },
     {},
     {{0, 0.5F}}},
    {"hard_sigmoid",
     [](const Tensor& x) { return hard_sigmoid(x); },
     [](double x) { return clamped(x + 3, 0, 6) / 6; },
     {-3, 3},
     {{-3, 0}, {3, 0}}},
    {"hard_swish",
     [](const Tensor& x) { return hard_swish(x); },
     [](double x) { return x * clamped(x + 3, 0, 6) / 6; },
     {-3, 3},
     {{-3, 0}, {3, 1}}},
};

class ActivationTest : public ::testing::TestWithParam<Activation> {};

TEST_P(ActivationTest, EqualsItsFormula) {
  const auto x = random_values(5000, 1, {-9, 9});
  std::vector<double> want;
  want.reserve(x.size());
  for (const float v : x) want.push_back(GetParam().formula(static_cast<double>(v)));
  for (const Device device : available_devices()) {
    EXPECT_TRUE(near(GetParam().op(Tensor::from_values({5000}, x, device)), want, 2e-7));
    EXPECT_TRUE(near(GetParam().op(Tensor::from_values({5, 10, 20, 5}, x, device)), want, 2e-7));
  }
}

TEST_P(ActivationTest, PassesTheGradientCheck) {
  for (const Shape& s : {Shape{}, Shape{17}, Shape{2, 5, 3, 3}})
    EXPECT_TRUE(check_gradients([&](const auto& in) { return GetParam().op(in[0]); },
                                {{"x", s, {-8, 8, GetParam().kinks}}}));
}

TEST_P(ActivationTest, DerivativesAtKinks) {
  for (const auto& [at, derivative] : GetParam().derivatives_at_kinks) {
    Tensor x = Tensor::scalar(at).set_requires_grad(true);
    Tape::backward(GetParam().op(x));
    EXPECT_NEAR(x.grad().item(), derivative, 1e-6) << "at " << at;
  }
}

TEST_P(ActivationTest, NaNPassesAndInfinityHasItsLimit) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  // Long enough to meet vector code and the rest behind it.
  for (const std::size_t length : {std::size_t{1}, std::size_t{35}})
    for (std::size_t place = 0; place < length; ++place) {
      std::vector<float> x(length, 0.5F);
      x[place] = NAN;
      const auto y = GetParam().op(Tensor::from_values({static_cast<std::int64_t>(length)}, x)).values();
      for (std::size_t i = 0; i < length; ++i) EXPECT_EQ(std::isnan(y[i]), i == place);
    }
  const float above = GetParam().op(Tensor::scalar(infinity)).item();
  EXPECT_EQ(above, static_cast<float>(GetParam().formula(1e30)) > 1e20F
                       ? infinity
                       : static_cast<float>(GetParam().formula(1e30)));
}

INSTANTIATE_TEST_SUITE_P(All, ActivationTest, ::testing::ValuesIn(activations),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace qtrain
