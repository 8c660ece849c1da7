#include "engine/ops/pooling.h"

#include <limits>

#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

struct Case {
  Shape x;
  PoolGeometry geometry;
};

const Case cases[] = {
    {{2, 16, 6, 6}, {}},
    {{2, 5, 7, 5}, {}},
    {{2, 19, 9, 8}, {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}},
    {{1, 3, 8, 8}, {.kernel = {3, 3}, .stride = {1, 1}, .pad = {1, 1}}},
    {{1, 4, 7, 9}, {.kernel = {2, 5}, .stride = {3, 1}, .pad = {1, 2}}},
    {{1, 4, 5, 5}, {.kernel = {1, 1}, .stride = {2, 2}}},
    {{1, 1, 4, 4}, {.kernel = {4, 4}, .stride = {4, 4}}},
    {{2, 17, 3, 3}, {.kernel = {5, 5}, .stride = {1, 1}, .pad = {2, 2}}},
    {{1, 8, 6, 6}, {.kernel = {2, 2}, .stride = {3, 3}}},
};

// Calls visit(output index, window area inside the image, input indices) for every window, in N, C, H, W
// order.
template <class Visit>
void for_windows(const Case& c, Visit&& visit) {
  const PoolGeometry& g = c.geometry;
  const std::int64_t height = c.x[2];
  const std::int64_t width = c.x[3];
  std::size_t out = 0;
  for (std::int64_t image = 0; image < c.x[0] * c.x[1]; ++image)
    for (std::int64_t i = -g.pad.h; i + g.kernel.h <= height + g.pad.h; i += g.stride.h)
      for (std::int64_t j = -g.pad.w; j + g.kernel.w <= width + g.pad.w; j += g.stride.w) {
        std::vector<std::size_t> inside;
        for (std::int64_t u = i; u < i + g.kernel.h; ++u)
          for (std::int64_t v = j; v < j + g.kernel.w; ++v)
            if (u >= 0 && u < height && v >= 0 && v < width)
              inside.push_back(static_cast<std::size_t>((image * height + u) * width + v));
        visit(out++, inside);
      }
}

TEST(MaxPool, EqualsItsDefinitionWithTies) {
  for (const Device device : available_devices())
    for (const Case& c : cases) {
      std::vector<float> x = random_values(c.x.numel(), 1, {-4, 1});
      for (float& v : x) v = std::round(v);  // few values: many ties
      Tensor tx = Tensor::from_values(c.x, x, device).set_requires_grad(true);
      const Tensor y = max_pool2d(tx, c.geometry);
      const auto cotangent = random_values(y.numel(), 2);
      std::vector<float> want(cotangent.size());
      std::vector<double> grad(x.size());
      for_windows(c, [&](std::size_t out, const std::vector<std::size_t>& inside) {
        const std::size_t first = *std::ranges::max_element(inside, {}, [&](std::size_t i) { return x[i]; });
        want[out] = x[first];
        grad[first] += static_cast<double>(cotangent[out]);
      });
      EXPECT_EQ(y.values(), want) << c.x.str();
      Tape::backward(y, Tensor::from_values(y.shape(), cotangent, device));
      EXPECT_TRUE(near(tx.grad(), grad, 1e-6)) << c.x.str();
    }
}

TEST(MaxPool, PassesTheGradientCheck) {
  for (const Case& c : cases)
    EXPECT_TRUE(check_gradients([&](const auto& in) { return max_pool2d(in[0], c.geometry); },
                                {{"x", c.x, {-1e3, 1e3}}}, {.step = 1e-3}))
        << c.x.str();
}

TEST(MaxPool, NaNWinsAndMinusInfinityIsAValue) {
  for (std::size_t place = 0; place < 4; ++place) {
    std::vector<float> x{1, 2, 3, 4};
    x[place] = NAN;
    Tensor tx = Tensor::from_values({1, 1, 2, 2}, x).set_requires_grad(true);
    const Tensor y = max_pool2d(tx, {});
    EXPECT_TRUE(std::isnan(y.item())) << place;
    Tape::backward(y);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(tx.grad().values()[i], i == place ? 1.0F : 0.0F);
  }
  const float lowest = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(
      max_pool2d(Tensor::full({1, 1, 3, 3}, lowest), {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}})
          .values(),
      std::vector<float>(4, lowest));
}

TEST(AveragePool, EqualsItsDefinition) {
  for (const Device device : available_devices())
    for (Case c : cases)
      for (const bool count_padding : {false, true}) {
        c.geometry.count_padding = count_padding;
        const auto x = random_values(c.x.numel(), 1);
        Tensor tx = Tensor::from_values(c.x, x, device).set_requires_grad(true);
        const Tensor y = average_pool2d(tx, c.geometry);
        const auto cotangent = random_values(y.numel(), 2);
        std::vector<double> want(cotangent.size());
        std::vector<double> grad(x.size());
        for_windows(c, [&](std::size_t out, const std::vector<std::size_t>& inside) {
          const double area = count_padding ? static_cast<double>(c.geometry.kernel.h * c.geometry.kernel.w)
                                            : static_cast<double>(inside.size());
          for (const std::size_t i : inside) {
            want[out] += static_cast<double>(x[i]) / area;
            grad[i] += static_cast<double>(cotangent[out]) / area;
          }
        });
        EXPECT_TRUE(near(y, want, 1e-6)) << c.x.str() << count_padding;
        Tape::backward(y, Tensor::from_values(y.shape(), cotangent, device));
        EXPECT_TRUE(near(tx.grad(), grad, 1e-6)) << c.x.str() << count_padding;
        EXPECT_TRUE(
            check_gradients([&](const auto& in) { return average_pool2d(in[0], c.geometry); }, {{"x", c.x}}));
      }
}

TEST(GlobalAveragePool, IsTheMeanOfEachImage) {
  for (const Shape& s : {Shape{2, 16, 7, 7}, Shape{3, 5, 2, 3}, Shape{1, 1, 1, 1}, Shape{2, 33, 1, 9}}) {
    const auto x = random_values(s.numel(), 1);
    const std::int64_t pixels = s[2] * s[3];
    std::vector<double> want(static_cast<std::size_t>(s[0] * s[1]));
    for (std::size_t i = 0; i < x.size(); ++i)
      want[i / static_cast<std::size_t>(pixels)] += static_cast<double>(x[i]) / static_cast<double>(pixels);
    const Tensor y = global_average_pool2d(Tensor::from_values(s, x));
    EXPECT_EQ(y.shape(), (Shape{s[0], s[1], 1, 1}));
    EXPECT_TRUE(near(y, want, 1e-6));
    EXPECT_TRUE(check_gradients([](const auto& in) { return global_average_pool2d(in[0]); }, {{"x", s}}));
  }
}

}  // namespace
}  // namespace qtrain
