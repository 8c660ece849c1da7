#include "engine/ops/matmul.h"

#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

struct Sizes {
  std::int64_t rows, inner, columns;
};

constexpr Sizes sizes[] = {{1, 1, 1}, {2, 3, 4}, {5, 1, 7}, {1, 64, 10}, {17, 33, 9}, {64, 100, 16}};

TEST(Matmul, EqualsItsDefinition) {
  for (const auto [m, k, n] : sizes) {
    const auto a = random_values(m * k, 1);
    const auto b = random_values(k * n, 2);
    std::vector<double> want(static_cast<std::size_t>(m * n));
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t l = 0; l < k; ++l)
          want[static_cast<std::size_t>(i * n + j)] +=
              static_cast<double>(a[static_cast<std::size_t>(i * k + l)]) *
              static_cast<double>(b[static_cast<std::size_t>(l * n + j)]);
    for (const Device device : available_devices())
      EXPECT_TRUE(near(matmul(Tensor::from_values({m, k}, a, device), Tensor::from_values({k, n}, b, device)),
                       want, 2e-6))
          << m << "x" << k << "x" << n;
  }
}

TEST(Matmul, PassesTheGradientCheck) {
  for (const auto [m, k, n] : sizes)
    EXPECT_TRUE(check_gradients([](const auto& in) { return matmul(in[0], in[1]); },
                                {{"a", {m, k}}, {"b", {k, n}}}, {.step = 0.25, .tolerance = 1e-4}));
}

TEST(Linear, EqualsItsDefinition) {
  const auto x = random_values(15, 1);
  const auto w = random_values(20, 2);
  const auto b = random_values(4, 3);
  for (const bool with_bias : {false, true}) {
    std::vector<double> want;
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t o = 0; o < 4; ++o) {
        double total = with_bias ? static_cast<double>(b[o]) : 0.0;
        for (std::size_t k = 0; k < 5; ++k)
          total += static_cast<double>(x[i * 5 + k]) * static_cast<double>(w[o * 5 + k]);
        want.push_back(total);
      }
    for (const Device device : available_devices()) {
      const Tensor bias = with_bias ? Tensor::from_values({4}, b, device) : Tensor();
      EXPECT_TRUE(
          near(linear(Tensor::from_values({3, 5}, x, device), Tensor::from_values({4, 5}, w, device), bias),
               want, 2e-6));
    }
  }
}

TEST(Linear, PassesTheGradientCheck) {
  for (const auto [n, in, out] : sizes) {
    const GradientOptions options{.step = 0.25, .tolerance = 1e-4};
    EXPECT_TRUE(check_gradients([](const auto& t) { return linear(t[0], t[1]); },
                                {{"x", {n, in}}, {"weight", {out, in}}}, options));
    EXPECT_TRUE(check_gradients([](const auto& t) { return linear(t[0], t[1], t[2]); },
                                {{"x", {n, in}}, {"weight", {out, in}}, {"bias", {out}}}, options));
  }
}

}  // namespace
}  // namespace qtrain
