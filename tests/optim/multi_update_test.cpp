#include "engine/kernels/multi_update.h"

#include <gtest/gtest.h>

#include "engine/kernels/update.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::on_any_threads;
using testing_support::random_values;

const Stream host{};
constexpr std::int64_t sizes[] = {1, 0, 64, 8192, 5, 8193, 30011, 8191, 0};

// Arrays of these sizes, kind after kind in one vector.
struct Arrays {
  std::vector<std::vector<float>> all;
  explicit Arrays(std::uint64_t seed) {
    for (const std::int64_t n : sizes) all.push_back(random_values(n, seed++));
  }
  float* operator[](std::size_t i) { return all[i].data(); }
  std::vector<float> joined() const {
    std::vector<float> result;
    for (const auto& a : all) result.insert(result.end(), a.begin(), a.end());
    return result;
  }
};

// a += factor of the group * b; b counts how often it was reached.
struct AddScaled {
  const float* factors;
  float factor = 0;
  void prepare(std::int64_t group) { factor = factors[group]; }
  void operator()(float& a, float& b) const {
    a += factor * b;
    b += 1;
  }
};

TEST(MultiUpdate, IsOneUpdateOfEachSet) {
  const float factors[] = {2, -3};
  const auto group_of = [](std::size_t i) { return static_cast<std::int64_t>(i % 3 == 0 ? 1 : 0); };
  const std::vector<float> fused = on_any_threads([&] {
    Arrays a(1);
    Arrays b(50);
    TensorSets<float, float> sets;
    for (std::size_t i = 0; i < std::size(sizes); ++i)
      sets.push_back({.arrays = {a[i], b[i]}, .count = sizes[i], .group = group_of(i)});
    multi_update(host, sets, AddScaled{factors});
    std::vector<float> result = a.joined();
    const std::vector<float> rest = b.joined();
    result.insert(result.end(), rest.begin(), rest.end());
    return result;
  });
  Arrays a(1);
  Arrays b(50);
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    AddScaled f{factors};
    f.prepare(group_of(i));
    update(host, sizes[i], f, a[i], b[i]);
  }
  std::vector<float> expected = a.joined();
  const std::vector<float> rest = b.joined();
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT_TRUE(identical(fused, expected));
}

TEST(MultiUpdate, OfNothingDoesNothing) {
  multi_update(host, TensorSets<float>{}, [](float& a) { a = 1; });
  multi_update(host, TensorSets<float>{{.arrays = {nullptr}, .count = 0}}, [](float& a) { a = 1; });
  float sum = 7;
  multi_reduce<1, Sum>(
      host, TensorSets<float>{}, [](float v) { return Terms<1>{v}; }, &sum);
  EXPECT_EQ(sum, 0);
}

struct SumAndSquares {
  const float* factors;
  float factor = 0;
  void prepare(std::int64_t group) { factor = factors[group]; }
  Terms<2> operator()(float v) const { return {factor * v, v * v}; }
};

TEST(MultiReduce, AddsUpAllSets) {
  const float factors[] = {1, 0.5F};
  Arrays a(9);
  TensorSets<float> sets;
  double sum = 0;
  double squares = 0;
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    const auto group = static_cast<std::int64_t>(i % 2);
    sets.push_back({.arrays = {a[i]}, .count = sizes[i], .group = group});
    for (const float v : a.all[i]) {
      sum += static_cast<double>(factors[group] * v);
      squares += static_cast<double>(v) * static_cast<double>(v);
    }
  }
  const std::vector<float> result = on_any_threads([&] {
    std::vector<float> both(2);
    multi_reduce<2, Sum>(host, sets, SumAndSquares{factors}, both.data());
    return both;
  });
  EXPECT_NEAR(static_cast<double>(result[0]), sum, 1e-6 * squares);
  EXPECT_NEAR(static_cast<double>(result[1]), squares, 1e-6 * squares);
}

TEST(MultiReduce, OfOneSetIsReduce) {
  std::vector<float> a = random_values(100003, 3);
  const auto square = [](float v) { return Terms<1>{v * v}; };
  float one = 0;
  float many = 0;
  const auto n = static_cast<std::int64_t>(a.size());
  reduce<1, Sum>(host, n, square, &one, static_cast<const float*>(a.data()));
  multi_reduce<1, Sum>(host, TensorSets<float>{{.arrays = {a.data()}, .count = n}}, square, &many);
  EXPECT_EQ(one, many);
  a[77777] = 10;
  multi_reduce<1, Maximum>(host, TensorSets<float>{{.arrays = {a.data()}, .count = n}}, square, &many);
  EXPECT_EQ(many, 100);
  a[12345] = NAN;
  multi_reduce<1, Maximum>(host, TensorSets<float>{{.arrays = {a.data()}, .count = n}}, square, &many);
  EXPECT_TRUE(std::isnan(many));
}

}  // namespace
}  // namespace qtrain
