// Kernels between images and the same images with a border, against a naive loop.
#include "engine/kernels/bordered.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::on_any_threads;
using testing_support::random_values;

const Stream host{};

struct Case {
  std::string name;
  Shape images;
  Border border;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

std::vector<Case> cases() {
  return {
      {"one_pixel", {1, 1, 1, 1}, {{1, 1}, {1, 1}}},
      {"no_border", {2, 3, 4, 5}, {}},
      {"above_and_left", {2, 5, 3, 7}, {{1, 2}, {0, 0}}},
      {"below_and_right", {3, 4, 5, 3}, {{0, 0}, {2, 1}}},
      {"columns_only", {2, 16, 6, 5}, {{0, 1}, {0, 3}}},
      {"rows_only", {2, 7, 6, 5}, {{3, 0}, {1, 0}}},
      {"wider_than_the_image", {2, 3, 1, 2}, {{4, 5}, {6, 3}}},
      {"rows_longer_than_a_block", {2, 300, 3, 31}, {{1, 1}, {1, 1}}},
      {"many_short_rows", {9, 2, 90, 3}, {{1, 1}, {1, 2}}},
      {"large", {5, 17, 33, 31}, {{1, 2}, {2, 1}}},
      {"larger_than_caches", {3, 35, 101, 103}, {{1, 1}, {1, 2}}},
      {"larger_without_border", {2, 16, 200, 180}, {}},
      {"no_images", {0, 3, 4, 5}, {{1, 1}, {1, 1}}},
  };
}

struct Affine {
  const float* factors;
  float factor = -1;
  void prepare(std::int64_t group) { factor = factors[group]; }
  float operator()(float x) const { return x * factor + 2; }
  float operator()(float x, float g) const { return x * factor - g; }
};

struct Terms3 {
  Affine f;
  void prepare(std::int64_t group) { f.prepare(group); }
  Mapped<3> operator()(float x, float g) const { return {f(x, g), {x * g, g, 1}}; }
};

class Bordered : public testing::TestWithParam<Case> {
 protected:
  // For each element of the wide array, which of the images' it is; -1 in the border.
  std::vector<std::int64_t> origins() const {
    const Shape& s = images_;
    std::vector<std::int64_t> all;
    for (std::int64_t n = 0; n < s[0]; ++n)
      for (std::int64_t i = -border_.begin.h; i < s[2] + border_.end.h; ++i)
        for (std::int64_t j = -border_.begin.w; j < s[3] + border_.end.w; ++j)
          for (std::int64_t c = 0; c < s[1]; ++c) {
            const bool inside = i >= 0 && i < s[2] && j >= 0 && j < s[3];
            all.push_back(inside ? ((n * s[2] + i) * s[3] + j) * s[1] + c : -1);
          }
    return all;
  }

  const Shape images_ = GetParam().images;
  const Border border_ = GetParam().border;
  const BorderedRows rows_{images_, border_};
  const std::vector<std::int64_t> origins_ = origins();
  const std::vector<float> x_ = random_values(images_.numel(), 1);
  const std::vector<float> wide_ = random_values(border_.around(images_).numel(), 2);
  const float factor_ = 0.7F;
};

TEST_P(Bordered, RowsTellTheirSize) {
  EXPECT_EQ(rows_.count() * rows_.length(), border_.around(images_).numel());
  EXPECT_GE(rows_.block(), 1);
}

// From the images' side: where each element lies, and one owner for each place of the border, of its channel.
TEST_P(Bordered, ElementsKnowTheirPlaceAndTheirShareOfTheBorder) {
  const std::int64_t n = images_.numel();
  std::vector<std::int64_t> places(wide_.size(), -1), owners(wide_.size(), -1);
  for (std::int64_t i = 0; i < n; ++i) {
    places[static_cast<std::size_t>(rows_.at(i))] = i;
    rows_.visit_share(i, [&](std::int64_t at) {
      EXPECT_EQ(std::exchange(owners[static_cast<std::size_t>(at)], i), -1) << at;
    });
  }
  EXPECT_EQ(places, n > 0 ? origins_ : places);
  for (std::size_t at = 0; at < owners.size() && n > 0; ++at)
    if (origins_[at] < 0)
      ASSERT_EQ(owners[at] % images_[1], static_cast<std::int64_t>(at) % images_[1]) << at;
    else
      ASSERT_EQ(owners[at], -1) << at;
}

TEST_P(Bordered, AnyRangesOfElementsMakeTheWholeWithItsBorder) {
  const std::int64_t n = images_.numel();
  for (const std::int64_t step : {std::int64_t{1}, std::int64_t{7}, std::int64_t{2048}, n}) {
    std::vector<std::int64_t> origins(wide_.size(), -2);
    const auto put = [&](std::int64_t at, std::int64_t value) {
      EXPECT_EQ(std::exchange(origins[static_cast<std::size_t>(at)], value), -2) << at;
    };
    for (std::int64_t first = 0; first < n; first += step)
      rows_.visit(
          first, std::min(step, n - first),
          [&](std::int64_t at, std::int64_t from, std::int64_t count) {
            for (std::int64_t i = 0; i < count; ++i) put(at + i, from + i);
          },
          [&](std::int64_t at, std::int64_t count) {
            for (std::int64_t i = 0; i < count; ++i) put(at + i, -1);
          });
    EXPECT_EQ(origins, n > 0 ? origins_ : origins) << step;
  }
}

TEST_P(Bordered, MapFillsTheBorderWithWhatZeroBecomes) {
  const std::vector<float> y = on_any_threads([&] {
    std::vector<float> out(wide_.size(), -7);
    map_bordered(host, rows_, Affine{&factor_}, out.data(), x_.data());
    return out;
  });
  for (std::size_t i = 0; i < y.size(); ++i)
    ASSERT_EQ(y[i], origins_[i] < 0 ? 2 : x_[static_cast<std::size_t>(origins_[i])] * factor_ + 2) << i;
}

TEST_P(Bordered, MapInsideLeavesTheBorderOut) {
  const std::vector<float> y = on_any_threads([&] {
    std::vector<float> out(x_.size(), -7);
    map_inside(host, rows_, Affine{&factor_}, out.data(), wide_.data(), x_.data());
    return out;
  });
  std::vector<float> copied(x_.size(), -7);
  map_inside(
      host, rows_, [](float v) { return v; }, copied.data(), wide_.data());
  for (std::size_t i = 0; i < wide_.size(); ++i) {
    if (origins_[i] < 0) continue;
    const auto at = static_cast<std::size_t>(origins_[i]);
    ASSERT_EQ(y[at], x_[at] * factor_ - wide_[i]) << i;
    ASSERT_EQ(copied[at], wide_[i]) << i;
  }
}

TEST_P(Bordered, MapReduceSumsTheBorderToo) {
  const std::vector<float> result = on_any_threads([&] {
    std::vector<float> out(x_.size() + 3, -7);
    map_reduce_bordered<3>(host, rows_, Terms3{{&factor_}}, out.data() + x_.size(), out.data(), wide_.data(),
                           x_.data());
    return out;
  });
  double sums[3] = {0, 0, 0};
  double sizes[3] = {0, 0, 0};
  for (std::size_t i = 0; i < wide_.size(); ++i) {
    const auto at = static_cast<std::size_t>(std::max<std::int64_t>(origins_[i], 0));
    const float x = origins_[i] < 0 ? 0 : x_[at];
    if (origins_[i] >= 0) {
      ASSERT_EQ(result[at], x * factor_ - wide_[i]) << i;
    }
    const double terms[3] = {static_cast<double>(x * wide_[i]), static_cast<double>(wide_[i]), 1};
    for (std::size_t k = 0; k < 3; ++k) {
      sums[k] += terms[k];
      sizes[k] += std::abs(terms[k]);
    }
  }
  for (std::size_t k = 0; k < 3; ++k)
    EXPECT_NEAR(static_cast<double>(result[x_.size() + k]), sums[k], 2e-6 * sizes[k]) << k;
}

INSTANTIATE_TEST_SUITE_P(Shapes, Bordered, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace qtrain
