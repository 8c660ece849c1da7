#include "engine/core/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

namespace qtrain {
namespace {

// The known answers that come with Random123 (kat_vectors, philox4x32-10).
TEST(Philox, KnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Pearson's statistic stays below its mean k-1 plus five deviations sqrt(2(k-1)).
void expect_uniform(const std::vector<int>& counts) {
  double total = 0;
  for (const int c : counts) total += c;
  const double expected = total / static_cast<double>(counts.size());
  double statistic = 0;
  for (const int c : counts) statistic += (c - expected) * (c - expected) / expected;
  const auto freedom = static_cast<double>(counts.size() - 1);
  EXPECT_LT(statistic, freedom + 5 * std::sqrt(2 * freedom));
}

TEST(RandomStream, IsAPureFunctionOfItsPlace) {
  RandomStream a(1, RandomPurpose::augment, 2, 3);
  RandomStream b(1, RandomPurpose::augment, 2, 3);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.next(), b.next());
}

TEST(RandomStream, NeighboursShareNothing) {
  std::vector<RandomStream> streams;
  for (const std::uint64_t seed : {0ULL, 1ULL, 1ULL << 32, 1ULL << 63})
    for (const RandomPurpose purpose : {RandomPurpose::init, RandomPurpose::shuffle, RandomPurpose::user})
      for (const std::uint64_t epoch : {0ULL, 1ULL, 1ULL << 40})
        for (const std::uint64_t index : {0ULL, 1ULL, 2ULL, 1ULL << 32})
          streams.emplace_back(seed, purpose, epoch, index);
  std::set<std::uint64_t> seen;
  for (RandomStream& s : streams)
    for (int i = 0; i < 64; ++i) {
      const std::uint64_t upper = s.next();
      seen.insert(upper << 32 | s.next());
    }
  EXPECT_EQ(seen.size(), streams.size() * 64);
}

TEST(RandomStream, NeighboursAreUncorrelated) {
  for (const auto& [epoch, index] : {std::pair{0U, 1U}, {1U, 0U}}) {
    RandomStream a(7, RandomPurpose::user, 0, 0);
    RandomStream b(7, RandomPurpose::user, epoch, index);
    constexpr int n = 20000;
    double product = 0;
    for (int i = 0; i < n; ++i) product += (a.uniform() - 0.5) * (b.uniform() - 0.5) * 12;
    EXPECT_LT(std::abs(product) / n, 5 / std::sqrt(n));
  }
  // Also along the index: the first number of each sample's stream.
  std::vector<int> counts(64);
  for (std::uint64_t i = 0; i < 20000; ++i)
    ++counts[static_cast<std::size_t>(RandomStream(7, RandomPurpose::augment, 3, i).uniform() * 64)];
  expect_uniform(counts);
}

TEST(RandomStream, UniformFillsTheInterval) {
  RandomStream random(5, RandomPurpose::user);
  std::vector<int> counts(256);
  for (int i = 0; i < 100000; ++i) {
    const double u = random.uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++counts[static_cast<std::size_t>(u * 256)];
  }
  expect_uniform(counts);
  for (int i = 0; i < 1000; ++i) {
    const double u = random.uniform(-3, 5);
    EXPECT_TRUE(u >= -3 && u < 5);
  }
}

TEST(RandomStream, BelowHasNoBias) {
  RandomStream random(6, RandomPurpose::user);
  for (const std::uint64_t bound : {1ULL, 2ULL, 3ULL, 6ULL, 7ULL, 1000ULL}) {
    std::vector<int> counts(bound);
    for (int i = 0; i < 60000; ++i) ++counts.at(random.below(bound));
    if (bound > 1) expect_uniform(counts);
  }
  // 64 random bits modulo 3 * 2^62 would fall into the lowest third half of the time.
  const std::uint64_t third = 1ULL << 62;
  std::vector<int> counts(3);
  for (int i = 0; i < 30000; ++i) ++counts.at(random.below(3 * third) / third);
  expect_uniform(counts);
}

TEST(RandomStream, NormalHasItsMoments) {
  RandomStream random(8, RandomPurpose::user);
  constexpr int n = 200000;
  std::array<double, 5> moments{};
  double within_one = 0;
  for (int i = 0; i < n; ++i) {
    const double z = random.normal();
    ASSERT_TRUE(std::isfinite(z));
    for (std::size_t k = 1; k <= 4; ++k) moments[k] += std::pow(z, static_cast<double>(k)) / n;
    within_one += std::abs(z) < 1 ? 1.0 / n : 0.0;
  }
  EXPECT_NEAR(moments[1], 0, 0.012);
  EXPECT_NEAR(moments[2], 1, 0.016);
  EXPECT_NEAR(moments[3], 0, 0.045);
  EXPECT_NEAR(moments[4], 3, 0.12);
  EXPECT_NEAR(within_one, 0.6827, 0.006);
}

TEST(RandomStream, Bernoulli) {
  RandomStream random(9, RandomPurpose::user);
  int hits = 0;
  for (int i = 0; i < 20000; ++i) hits += random.bernoulli(0.3) ? 1 : 0;
  EXPECT_NEAR(hits, 6000, 330);
  EXPECT_FALSE(random.bernoulli(0));
  EXPECT_TRUE(random.bernoulli(1));
}

TEST(RandomPermutation, IsABijection) {
  std::vector<std::uint64_t> sizes{1000, 1023, 1024, 1025, 4095, 4096, 4097, 50000};
  for (std::uint64_t s = 1; s <= 130; ++s) sizes.push_back(s);
  for (const std::uint64_t size : sizes) {
    const RandomPermutation order(size, 3, 5);
    std::vector<bool> met(size);
    for (std::uint64_t i = 0; i < size; ++i) {
      const std::uint64_t image = order(i);
      ASSERT_LT(image, size);
      ASSERT_FALSE(met[image]) << size;
      met[image] = true;
    }
  }
}

TEST(RandomPermutation, HugeSizesStayInRange) {
  for (const std::uint64_t size : {1ULL << 33, (1ULL << 62) + 1, ~0ULL}) {
    const RandomPermutation order(size, 1, 1);
    std::set<std::uint64_t> images;
    for (std::uint64_t i = 0; i < 100; ++i) images.insert(order(size - 1 - i));
    EXPECT_EQ(images.size(), 100U);
    EXPECT_LT(*images.rbegin(), size);
  }
}

TEST(RandomPermutation, DependsOnSeedAndEpoch) {
  const auto order_of = [](std::uint64_t seed, std::uint64_t epoch) {
    std::vector<std::uint64_t> order;
    for (std::uint64_t i = 0; i < 100; ++i) order.push_back(RandomPermutation(100, seed, epoch)(i));
    return order;
  };
  EXPECT_EQ(order_of(1, 1), order_of(1, 1));
  EXPECT_NE(order_of(1, 1), order_of(1, 2));
  EXPECT_NE(order_of(1, 1), order_of(2, 1));
  EXPECT_NE(order_of(1, 1), order_of(1, 1 + (1ULL << 32)));
}

TEST(RandomPermutation, EveryPlaceGoesEverywhere) {
  constexpr std::uint64_t size = 20;
  for (const std::uint64_t position : {0ULL, 7ULL, 19ULL}) {
    std::vector<int> counts(size);
    for (std::uint64_t epoch = 0; epoch < 10000; ++epoch)
      ++counts[RandomPermutation(size, 11, epoch)(position)];
    expect_uniform(counts);
  }
}

}  // namespace
}  // namespace qtrain
