#include "engine/kernels/elementwise.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/core/error.h"
#include "engine/kernels/update.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::on_any_threads;
using testing_support::random_values;
using testing_support::Threads;

constexpr std::int64_t sizes[] = {0, 1, 15, 16, 17, 63, 64, 8191, 8192, 8193, 100003};
const Stream host{};

TEST(Map, ReachesEveryElementOnce) {
  for (const std::int64_t n : sizes) {
    const auto a = random_values(n, 1);
    const auto b = random_values(n, 2);
    const auto y = on_any_threads([&] {
      std::vector<float> out(a.size(), -7);
      map(
          host, n, [](float x, float z) { return x * z + 1; }, out.data(), a.data(), b.data());
      return out;
    });
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_EQ(y[i], a[i] * b[i] + 1);
  }
}

TEST(Map, ConvertsTypes) {
  const std::vector<std::uint8_t> in{0, 7, 255};
  std::vector<float> out(3);
  map(
      host, 3, [](std::uint8_t v) { return static_cast<float>(v) * 2; }, out.data(), in.data());
  EXPECT_EQ(out, (std::vector<float>{0, 14, 510}));
}

struct ScaledBy {
  const float* source;
  float factor = -1;
  void prepare() { factor = *source; }
  float operator()(float x) const { return x * factor; }
};

TEST(Map, PreparesTheFunctorWhereItRuns) {
  const float factor = 3;
  const std::vector<float> in(100000, 2);
  const auto y = on_any_threads([&] {
    std::vector<float> out(in.size());
    map(host, static_cast<std::int64_t>(in.size()), ScaledBy{&factor}, out.data(), in.data());
    return out;
  });
  EXPECT_EQ(y, std::vector<float>(in.size(), 6));
}

TEST(MapReduce, SumsAreTheSameForAnyThreads) {
  for (const std::int64_t n : sizes) {
    const auto a = random_values(n, 1);
    const auto result = on_any_threads([&] {
      std::vector<float> out(a.size() + 2);
      map_reduce<2>(
          host, n,
          [](float x) {
            return Mapped<2>{2 * x, {x, x * x}};
          },
          out.data() + a.size(), out.data(), a.data());
      return out;
    });
    double sum = 0;
    double squares = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(result[i], 2 * a[i]);
      sum += static_cast<double>(a[i]);
      squares += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    }
    EXPECT_NEAR(static_cast<double>(result[a.size()]), sum, 1e-6 * squares + 1e-6);
    EXPECT_NEAR(static_cast<double>(result[a.size() + 1]), squares, 1e-6 * squares);
  }
}

TEST(Reduce, SumAndMaximum) {
  for (const std::int64_t n : sizes) {
    const auto a = random_values(n, 1, {-5, -1});
    const auto result = on_any_threads([&] {
      std::vector<float> out(3);
      reduce<1, Sum>(
          host, n, [](float x) { return Terms<1>{x}; }, out.data(), a.data());
      reduce<2, Maximum>(
          host, n,
          [](float x) {
            return Terms<2>{x, -x};
          },
          out.data() + 1, a.data());
      return out;
    });
    if (n == 0) {
      EXPECT_EQ(result, (std::vector<float>{0, -INFINITY, -INFINITY}));
      continue;
    }
    const double sum = std::accumulate(a.begin(), a.end(), 0.0);
    EXPECT_NEAR(static_cast<double>(result[0]) / sum, 1, 1e-6);
    EXPECT_EQ(result[1], *std::ranges::max_element(a));
    EXPECT_EQ(result[2], -*std::ranges::min_element(a));
  }
}

TEST(Reduce, MaximumOfANaNIsNaN) {
  for (const std::size_t place : {std::size_t{0}, std::size_t{16}, std::size_t{8190}, std::size_t{8192},
                                  std::size_t{20000}, std::size_t{20010}}) {
    auto a = random_values(20011, 1);
    a[place] = NAN;
    float result = 0;
    reduce<1, Maximum>(
        host, static_cast<std::int64_t>(a.size()), [](float x) { return Terms<1>{x}; }, &result, a.data());
    EXPECT_TRUE(std::isnan(result)) << place;
  }
}

TEST(Reduce, BlocksByThemselvesAndOnlyThoseThatAreWanted) {
  constexpr std::int64_t n = 4 * reduction_block + 5;
  const auto a = random_values(n, 1);
  const auto one = [](float x) { return Terms<1>{x}; };
  std::vector<float> of_block(5);
  reduce_each_block<1, Sum>(host, n, one, of_block.data(), a.data());
  for (std::int64_t b = 0; b < 5; ++b) {
    float alone = 0;
    const std::int64_t begin = b * reduction_block;
    reduce<1, Sum>(host, std::min(n - begin, reduction_block), one, &alone, a.data() + begin);
    EXPECT_EQ(of_block[static_cast<std::size_t>(b)], alone) << b;
  }
  const auto some = on_any_threads([&] {
    std::vector<float> sum(1);
    reduce_where<1, Sum>(
        host, n, [](std::int64_t b) { return b == 1 || b == 4; }, one, sum.data(), a.data());
    return sum;
  });
  EXPECT_FLOAT_EQ(some[0], of_block[1] + of_block[4]);
  float none = -1;
  reduce_where<1, Maximum>(
      host, n, [](std::int64_t) { return false; }, one, &none, a.data());
  EXPECT_EQ(none, -INFINITY);
}

TEST(Reduce, LongSumsKeepTheirDigits) {
  const std::vector<float> a(3'000'000, 0.1F);
  float result = 0;
  reduce<1, Sum>(
      host, static_cast<std::int64_t>(a.size()), [](float x) { return Terms<1>{x}; }, &result, a.data());
  EXPECT_NEAR(static_cast<double>(result) / (3e6 * static_cast<double>(0.1F)), 1, 1e-5);
}

TEST(ForEach, ReachesEveryIndexOnce) {
  for (const std::int64_t n : sizes)
    for (const std::int64_t grain : {1, 7, 16384}) {
      const auto visits = on_any_threads([&] {
        std::vector<float> counts(static_cast<std::size_t>(n));
        float* c = counts.data();
        for_each(
            host, n, [c](std::int64_t i) { c[i] += 1; }, grain);
        return counts;
      });
      EXPECT_EQ(visits, std::vector<float>(static_cast<std::size_t>(n), 1));
    }
}

TEST(Update, ChangesSeveralArrays) {
  for (const std::int64_t n : sizes) {
    const auto g = random_values(n, 1);
    const auto result = on_any_threads([&] {
      std::vector<float> both(g.size() * 2, 1);
      update(
          host, n,
          [](float& p, float& m, const float& grad) {
            m = 0.9F * m + grad;
            p -= m;
          },
          both.data(), both.data() + g.size(), g.data());
      return both;
    });
    for (std::size_t i = 0; i < g.size(); ++i) ASSERT_EQ(result[i], 1 - (0.9F + g[i]));
  }
}

TEST(ParallelFor, PartsCoverTheRangeOnce) {
  for (const int count : {1, 2, 3, 5}) {
    const Threads threads(count);
    for (const std::int64_t n : sizes)
      for (const std::int64_t grain : {1, 64, 100}) {
        std::vector<int> visits(static_cast<std::size_t>(n));
        parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
        });
        EXPECT_EQ(visits, std::vector<int>(static_cast<std::size_t>(n), 1)) << n;
      }
  }
}

TEST(ParallelFor, NestedCallsRunWhereTheyAre) {
  const Threads threads(3);
  std::vector<int> visits(300);
  parallel_for(3, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part)
      parallel_for(100, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) ++visits[static_cast<std::size_t>(part * 100 + i)];
      });
  });
  EXPECT_EQ(visits, std::vector<int>(300, 1));
}

TEST(ParallelFor, ErrorsReachTheCaller) {
  const Threads threads(3);
  const auto fail = [](std::int64_t, std::int64_t end) {
    if (end == 1000) throw ValueError({"kernel", "broken", "", "", ""});
  };
  EXPECT_THROW(parallel_for(1000, 1, fail), ValueError);
  EXPECT_THROW(parallel_for(1000, 100000, fail), ValueError);
}

TEST(Kernels, RefuseForeignStreams) {
  float x = 0;
  const Stream gpu{{DeviceType::cuda, 0}};
  EXPECT_THROW(map(
                   gpu, 1, [](float v) { return v; }, &x, &x),
               DeviceError);
}

TEST(ThreadCount, IsAtLeastOne) {
  const Threads threads(-3);
  EXPECT_EQ(thread_count(), 1);
}

}  // namespace
}  // namespace qtrain
