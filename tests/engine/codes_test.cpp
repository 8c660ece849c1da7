// map_codes and map_levels against their definition, for every width and shape of Grouping, with codes in no
// order.
#include "engine/kernels/codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::on_any_threads;
using testing_support::random_values;

const Stream host{};

// Levels a little different in each group, and a code for each that isn't its number.
template <int bits>
struct Levels {
  static constexpr int count = 1 << bits;
  float levels[count]{};
  float thresholds[count]{};
  std::int32_t codes[count]{};
  void prepare(std::int64_t group) {
    for (int i = 0; i < count; ++i) {
      levels[i] = -1 + 2.0F / count * (static_cast<float>(i) + 0.001F * static_cast<float>(group % 100));
      thresholds[i] = levels[i] - 0.7F / count;
      codes[i] = (i * 5 + 3 + static_cast<std::int32_t>(group)) % count;
    }
  }
};

template <int bits>
void expect_the_definition(std::int64_t n, const Grouping& grouping, const std::vector<float>& x) {
  SCOPED_TRACE(std::to_string(bits) + " bits, " + std::to_string(grouping.outer) + " x " +
               std::to_string(grouping.inner) + " groups of " + std::to_string(n));
  constexpr std::size_t values = code_sums(bits);
  const auto groups = static_cast<std::size_t>(grouping.groups());
  const std::vector<float> result = on_any_threads([&] {
    std::vector<float> out(x.size() + values * groups, -7);
    map_codes<bits>(host, n, grouping, Levels<bits>(), out.data() + n, out.data(), x.data());
    return out;
  });
  const std::vector<float> rounded = on_any_threads([&] {
    std::vector<float> out(x.size(), -7);
    map_levels<bits>(host, n, grouping, Levels<bits>(), out.data(), x.data());
    return out;
  });
  EXPECT_TRUE(identical(rounded, {result.begin(), result.begin() + n}));
  std::vector<double> sums(values * groups);
  std::vector<double> sizes(values * groups);
  Levels<bits> f;
  std::int64_t prepared = -1;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t span = n / grouping.outer;
    const std::int64_t inner = grouping.inner > 1 ? i % span / grouping.run % grouping.inner : 0;
    const std::int64_t group = i / span * grouping.inner + inner;
    if (group != prepared) f.prepare(group);
    prepared = group;
    const float v = x[static_cast<std::size_t>(i)];
    int level = 0;
    while (level + 1 < f.count && v > f.thresholds[level + 1]) ++level;
    ASSERT_EQ(result[static_cast<std::size_t>(i)], f.levels[level]) << i;
    const auto add = [&](int position, double value) {
      const std::size_t at = static_cast<std::size_t>(position) * groups + static_cast<std::size_t>(group);
      sums[at] += value;
      sizes[at] += std::abs(value);
    };
    for (int j = 0; j < bits; ++j) {
      if ((f.codes[level] >> j & 1) == 0) continue;
      add(pair_count(bits) + j, static_cast<double>(v));
      for (int k = j; k < bits; ++k)
        if ((f.codes[level] >> k & 1) != 0) add(pair_position(bits, j, k), 1);
    }
    add(code_sums(bits) - 1, static_cast<double>(v));
  }
  for (std::size_t at = 0; at < sums.size(); ++at) {
    const auto got = static_cast<double>(result[x.size() + at]);
    if (at < static_cast<std::size_t>(pair_count(bits)) * groups)
      ASSERT_EQ(got, sums[at]) << "pair, at " << at;
    else
      ASSERT_NEAR(got, sums[at], 2e-6 * sizes[at]) << "sum, at " << at;
  }
}

template <int bits>
void expect_the_definition_for_every_grouping() {
  const std::vector<std::pair<std::int64_t, Grouping>> cases = {
      {1, {}},
      {15, {}},
      {8193, {}},
      {100003, {}},
      {7, {.outer = 7}},
      {5 * 8193, {.outer = 5}},
      {401 * 144, {.outer = 401}},
      {5 * 1211, {.inner = 5, .run = 1}},
      {2 * 4099 * 5, {.inner = 2, .run = 4099}},
      {5 * 22 * 77, {.outer = 5, .inner = 2, .run = 11}},
  };
  for (const auto& [n, grouping] : cases)
    expect_the_definition<bits>(n, grouping, random_values(n, static_cast<std::uint64_t>(n)));
}

TEST(Codes, AreSummedAsDefined) {
  expect_the_definition_for_every_grouping<1>();
  expect_the_definition_for_every_grouping<2>();
  expect_the_definition_for_every_grouping<3>();
  expect_the_definition_for_every_grouping<4>();
  expect_the_definition_for_every_grouping<5>();
  expect_the_definition_for_every_grouping<8>();
}

// All of a block in one level: the largest counts there are.
TEST(Codes, OfAConstantAreCountedExactly) {
  expect_the_definition<4>(50000, {}, std::vector<float>(50000, 0.9F));
  expect_the_definition<4>(50000, {}, std::vector<float>(50000, -2.0F));
}

template <int bits>
void expect_special_values_pass() {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x(1000, 0.1F);
  x[3] = nan;
  x[17] = infinity;
  x[998] = nan;
  x[999] = -infinity;
  std::vector<float> y(x.size());
  std::vector<float> sums(code_sums(bits));
  Levels<bits> f;
  f.prepare(0);
  map_codes<bits>(host, 1000, {}, f, sums.data(), y.data(), x.data());
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[17], f.levels[f.count - 1]);
  EXPECT_TRUE(std::isnan(y[998]));
  EXPECT_EQ(y[999], f.levels[0]);
  EXPECT_TRUE(std::isnan(sums.back()));
  std::vector<float> rounded(x.size());
  map_levels<bits>(host, 1000, {}, f, rounded.data(), x.data());
  EXPECT_TRUE(identical(rounded, y));
}

TEST(Codes, LeaveNanAndRoundInfinity) {
  expect_special_values_pass<3>();
  expect_special_values_pass<6>();
}

TEST(Codes, OfNothingAreZero) {
  std::vector<float> sums(code_sums(2) * 3, -7);
  const float* const none = nullptr;
  map_codes<2>(host, 0, {.outer = 3}, Levels<2>(), sums.data(), static_cast<float*>(nullptr), none);
  EXPECT_EQ(sums, std::vector<float>(sums.size(), 0.0F));
}

}  // namespace
}  // namespace qtrain
