#include "engine/ops/reduce.h"

#include "engine/kernels/parallel.h"
#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

TEST(Reduce, SumAndMeanOfAll) {
  for (const Device device : available_devices())
    for (const Shape& s : {Shape{}, Shape{1}, Shape{17}, Shape{8193}, Shape{3, 5, 7, 9}, Shape{100003}}) {
      const auto x = random_values(s.numel(), 1, {0, 1});
      double total = 0;
      for (const float v : x) total += static_cast<double>(v);
      const Tensor t = Tensor::from_values(s, x, device);
      EXPECT_EQ(sum(t).shape(), Shape{});
      EXPECT_NEAR(static_cast<double>(sum(t).item()) / total, 1, 1e-6);
      EXPECT_NEAR(static_cast<double>(mean(t).item()) / total * static_cast<double>(s.numel()), 1, 1e-6);
    }
}

TEST(Reduce, SumOverDimensions) {
  for (const Shape& s : {Shape{4}, Shape{2, 3}, Shape{2, 3, 4}, Shape{2, 3, 4, 5}, Shape{2, 3, 2, 2, 3}})
    for (unsigned mask = 0; mask < (1U << s.rank()); ++mask)
      for (const bool keep : {false, true}) {
        std::vector<std::size_t> dims;
        std::vector<std::int64_t> left;
        for (std::size_t d = 0; d < s.rank(); ++d) {
          const bool summed = (mask >> d & 1U) != 0;
          if (summed) dims.push_back(d);
          if (!summed || keep) left.push_back(summed ? 1 : s[d]);
        }
        const Shape expected{std::span<const std::int64_t>(left)};
        const auto x = random_values(s.numel(), 1);
        std::vector<double> want(static_cast<std::size_t>(expected.numel()));
        for (std::int64_t i = 0; i < s.numel(); ++i) {
          std::int64_t rest = i;
          std::int64_t at = 0;
          std::int64_t stride = 1;
          for (std::size_t d = s.rank(); d-- > 0;) {
            if ((mask >> d & 1U) == 0) {
              at += rest % s[d] * stride;
              stride *= s[d];
            }
            rest /= s[d];
          }
          want[static_cast<std::size_t>(at)] += static_cast<double>(x[static_cast<std::size_t>(i)]);
        }
        const Tensor y = sum(Tensor::from_values(s, x), dims, keep);
        EXPECT_EQ(y.shape(), expected) << s.str();
        EXPECT_TRUE(near(y, want, 1e-6)) << s.str() << " mask " << mask;
        EXPECT_TRUE(check_gradients([&](const auto& in) { return sum(in[0], dims, keep); }, {{"x", s}},
                                    {.step = 0.25, .most_elements = 12}))
            << s.str() << " mask " << mask;
      }
}

TEST(Reduce, PassesTheGradientCheck) {
  EXPECT_TRUE(
      check_gradients([](const auto& in) { return sum(in[0]); }, {{"x", {2, 3, 4, 5}}}, {.step = 0.25}));
  EXPECT_TRUE(
      check_gradients([](const auto& in) { return mean(in[0]); }, {{"x", {2, 3, 4, 5}}}, {.step = 0.25}));
}

TEST(Reduce, ReturnsItsOwnElements) {
  const Tensor x = Tensor::zeros({2, 3});
  EXPECT_FALSE(sum(x, std::vector<std::size_t>{}).shares_storage_with(x));
}

}  // namespace
}  // namespace qtrain
