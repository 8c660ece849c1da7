// The grouped machinery against a naive loop, for every shape of Grouping: results, order, threads.
#include "engine/kernels/grouped.h"

#include <gtest/gtest.h>

#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::on_any_threads;
using testing_support::random_values;

const Stream host{};

struct Case {
  std::string name;
  Grouping grouping;
  std::int64_t n = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

// Sizes around a block of 8192 elements and around what a second thread is worth, and odd ones.
std::vector<Case> cases() {
  return {
      {"whole_one", {}, 1},
      {"whole_odd", {}, 8193},
      {"whole_large", {}, 100003},
      {"outer_of_one_element", {.outer = 7}, 7},
      {"outer_small_odd", {.outer = 3}, 3 * 17},
      {"outer_block", {.outer = 2}, 2 * 8192},
      {"outer_block_and_one", {.outer = 5}, 5 * 8193},
      {"outer_many_short", {.outer = 4001}, 4001 * 9},
      {"outer_large", {.outer = 3}, 3 * 50021},
      {"ranges_one_turn", {.inner = 4, .run = 3}, 12},
      {"ranges_of_one_channel", {.inner = 5, .run = 1}, 5 * 16411},
      {"ranges_odd_run", {.inner = 3, .run = 7}, 21 * 6257},
      {"ranges_run_longer_than_a_block", {.inner = 2, .run = 8195}, 2 * 8195 * 9},
      {"ranges_turn_longer_than_a_part", {.inner = 3, .run = 70001}, 3 * 70001 * 2},
      {"channels_of_samples_small", {.outer = 2, .inner = 3, .run = 1}, 2 * 3 * 5},
      {"channels_of_samples", {.outer = 3, .inner = 16, .run = 1}, 3 * 16 * 9001},
      {"ranges_of_samples", {.outer = 5, .inner = 2, .run = 11}, 5 * 22 * 777},
      {"many_samples_of_one_turn", {.outer = 1111, .inner = 3, .run = 5}, 1111 * 15},
      {"inner_one_ignores_run", {.outer = 4, .inner = 1, .run = 3}, 4 * 1000},
  };
}

// The definition.
std::int64_t group_of(std::int64_t i, const Case& c) {
  const std::int64_t span = c.n / c.grouping.outer;
  const std::int64_t inner = c.grouping.inner > 1 ? i % span / c.grouping.run % c.grouping.inner : 0;
  return i / span * c.grouping.inner + inner;
}

// y = x * factor[group] + group, so that a wrong group shows.
struct OfGroup {
  const float* factors;
  float factor = -1, number = -1;
  void prepare(std::int64_t group) {
    factor = factors[group];
    number = static_cast<float>(group);
  }
  float operator()(float x) const { return x * factor + number; }
};

struct TermsOfGroup {
  OfGroup f;
  void prepare(std::int64_t group) { f.prepare(group); }
  Mapped<3> operator()(float x, float g) const { return {f(x) - g, {x * g, f(x), 1}}; }
};

class Grouped : public testing::TestWithParam<Case> {
 protected:
  const Case& c_ = GetParam();
  std::size_t groups_ = static_cast<std::size_t>(c_.grouping.groups());
  std::vector<float> factors_ = random_values(c_.grouping.groups(), 5);
  std::vector<float> x_ = random_values(c_.n, 1);
  std::vector<float> g_ = random_values(c_.n, 2);
};

TEST_P(Grouped, MapPreparesEachElementsGroup) {
  const std::vector<float> y = on_any_threads([&] {
    std::vector<float> out(x_.size(), -7);
    map_groups(host, c_.n, c_.grouping, OfGroup{factors_.data()}, out.data(), x_.data());
    return out;
  });
  for (std::size_t i = 0; i < x_.size(); ++i) {
    const auto group = static_cast<std::size_t>(group_of(static_cast<std::int64_t>(i), c_));
    ASSERT_EQ(y[i], x_[i] * factors_[group] + static_cast<float>(group)) << i;
  }
}

TEST_P(Grouped, MapReduceSumsEachGroup) {
  const std::vector<float> result = on_any_threads([&] {
    std::vector<float> out(x_.size() + 3 * groups_, -7);
    map_reduce_groups<3>(host, c_.n, c_.grouping, TermsOfGroup{{factors_.data()}}, out.data() + c_.n,
                         out.data(), x_.data(), g_.data());
    return out;
  });
  std::vector<double> sums(3 * groups_);
  std::vector<double> sizes(3 * groups_);
  for (std::size_t i = 0; i < x_.size(); ++i) {
    const auto group = static_cast<std::size_t>(group_of(static_cast<std::int64_t>(i), c_));
    const float y = x_[i] * factors_[group] + static_cast<float>(group);
    ASSERT_EQ(result[i], y - g_[i]) << i;
    const double terms[3] = {static_cast<double>(x_[i] * g_[i]), static_cast<double>(y), 1};
    for (std::size_t k = 0; k < 3; ++k) {
      sums[k * groups_ + group] += terms[k];
      sizes[k * groups_ + group] += std::abs(terms[k]);
    }
  }
  for (std::size_t k = 0; k < sums.size(); ++k)
    EXPECT_NEAR(static_cast<double>(result[x_.size() + k]), sums[k], 2e-6 * sizes[k]) << k;
}

TEST_P(Grouped, MapReduceMayOverwriteItsInput) {
  std::vector<float> apart(x_.size());
  std::vector<float> sums(3 * groups_);
  const TermsOfGroup f{{factors_.data()}};
  map_reduce_groups<3>(host, c_.n, c_.grouping, f, sums.data(), apart.data(), x_.data(), g_.data());
  std::vector<float> in_place = g_;
  std::vector<float> again(3 * groups_);
  map_reduce_groups<3>(host, c_.n, c_.grouping, f, again.data(), in_place.data(), x_.data(), in_place.data());
  EXPECT_TRUE(identical(apart, in_place));
  EXPECT_TRUE(identical(sums, again));
}

TEST_P(Grouped, ReduceFindsEachGroupsExtremes) {
  const auto both = [](float x) { return Terms<2>{x, -x}; };
  const std::vector<float> result = on_any_threads([&] {
    std::vector<float> out(4 * groups_, -7);
    reduce_groups<2, Maximum>(host, c_.n, c_.grouping, both, out.data(), x_.data());
    reduce_groups<2, Minimum>(host, c_.n, c_.grouping, both, out.data() + 2 * groups_, x_.data());
    return out;
  });
  std::vector<float> most(groups_, -INFINITY);
  std::vector<float> least(groups_, INFINITY);
  for (std::size_t i = 0; i < x_.size(); ++i) {
    const auto group = static_cast<std::size_t>(group_of(static_cast<std::int64_t>(i), c_));
    most[group] = std::max(most[group], x_[i]);
    least[group] = std::min(least[group], x_[i]);
  }
  for (std::size_t group = 0; group < groups_; ++group) {
    EXPECT_EQ(result[group], most[group]);
    EXPECT_EQ(result[groups_ + group], -least[group]);
    EXPECT_EQ(result[2 * groups_ + group], least[group]);
    EXPECT_EQ(result[3 * groups_ + group], -most[group]);
  }
}

TEST_P(Grouped, ANaNReachesItsGroupAlone) {
  const std::size_t place = x_.size() / 2;
  const auto sick = static_cast<std::size_t>(group_of(static_cast<std::int64_t>(place), c_));
  x_[place] = NAN;
  std::vector<float> results(2 * groups_);
  const auto value = [](float x) { return Terms<1>{x}; };
  reduce_groups<1, Sum>(host, c_.n, c_.grouping, value, results.data(), x_.data());
  reduce_groups<1, Maximum>(host, c_.n, c_.grouping, value, results.data() + groups_, x_.data());
  for (std::size_t group = 0; group < groups_; ++group) {
    EXPECT_EQ(std::isnan(results[group]), group == sick) << group;
    EXPECT_EQ(std::isnan(results[groups_ + group]), group == sick) << group;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Grouped, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

struct Shared {
  const float* source;
  float factor = -1;
  void prepare() { factor = *source; }
  Mapped<2> operator()(float x, float g) const { return {factor * x, {x * g, g}}; }
};

// One group is the plain machinery, bit for bit, also for functors that know no groups.
TEST(OneGroup, HasTheBitsOfThePlainMachinery) {
  const float factor = 0.7F;
  for (const std::int64_t n : {0, 1, 63, 64, 65, 8191, 8192, 8193, 100003}) {
    const auto x = random_values(n, 1);
    const auto g = random_values(n, 2);
    std::vector<float> plain(x.size());
    std::vector<float> grouped(x.size());
    std::vector<float> sums(2);
    std::vector<float> group_sums(2);
    map_reduce<2>(host, n, Shared{&factor}, sums.data(), plain.data(), x.data(), g.data());
    map_reduce_groups<2>(host, n, {}, Shared{&factor}, group_sums.data(), grouped.data(), x.data(), g.data());
    EXPECT_TRUE(identical(plain, grouped)) << n;
    EXPECT_TRUE(identical(sums, group_sums)) << n;

    const auto value = [](float v) { return Terms<1>{v}; };
    reduce<1, Sum>(host, n, value, sums.data(), x.data());
    reduce_groups<1, Sum>(host, n, {}, value, group_sums.data(), x.data());
    reduce<1, Maximum>(host, n, value, sums.data() + 1, x.data());
    reduce_groups<1, Maximum>(host, n, {}, value, group_sums.data() + 1, x.data());
    EXPECT_TRUE(identical(sums, group_sums)) << n;
  }
}

// A group of its own sums as the same elements would alone.
TEST(OuterGroups, HaveTheBitsOfTheirElementsAlone) {
  constexpr std::int64_t size = 20011;
  const auto x = random_values(3 * size, 1);
  const auto value = [](float v) { return Terms<1>{v}; };
  std::vector<float> together(3);
  std::vector<float> alone(3);
  reduce_groups<1, Sum>(host, 3 * size, {.outer = 3}, value, together.data(), x.data());
  for (int group = 0; group < 3; ++group)
    reduce<1, Sum>(host, size, value, alone.data() + group, x.data() + group * size);
  EXPECT_TRUE(identical(together, alone));
}

TEST(EmptyGroups, SumToNothing) {
  for (const Grouping& grouping : {Grouping{.outer = 3}, Grouping{.inner = 3, .run = 2}}) {
    std::vector<float> results(6, -7);
    const float* const none = nullptr;
    const auto value = [](float v) { return Terms<1>{v}; };
    reduce_groups<1, Sum>(host, 0, grouping, value, results.data(), none);
    reduce_groups<1, Maximum>(host, 0, grouping, value, results.data() + 3, none);
    EXPECT_EQ(results, (std::vector<float>{0, 0, 0, -INFINITY, -INFINITY, -INFINITY}));
  }
}

}  // namespace
}  // namespace qtrain
