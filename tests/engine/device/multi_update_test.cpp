// Passes over many tensors, emulated on the host, against the host's own: updates bit for bit, sums within
// rounding, in whatever order threads and blocks run.
#define QTRAIN_EMULATE_KERNELS

#include "engine/kernels/multi_update.h"

#include <gtest/gtest.h>

#include "tests/engine/device/emulator.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::EmulatedGpu;
using testing_support::Fibers;
using testing_support::identical;
using testing_support::in_any_order;
using testing_support::near;
using testing_support::random_values;

const Stream host{};

// Tensors of many sizes, some of them beside a packet's alignment, and two groups of settings.
class Tensors {
 public:
  explicit Tensors(std::uint64_t seed) {
    for (std::size_t i = 0; i < std::size(sizes); ++i)
      values_.push_back(random_values(sizes[i] + offset(i), seed + i));
  }
  float* at(std::size_t i) { return values_[i].data() + offset(i); }
  std::vector<float> joined() const {
    std::vector<float> all;
    for (const auto& v : values_) all.insert(all.end(), v.begin(), v.end());
    return all;
  }
  static constexpr std::int64_t sizes[] = {0, 1, 64, 8192, 7, 8193, 16389, 0, 256, 8191, 30, 0};
  static std::int64_t group(std::size_t i) { return i % 3 == 0 ? 1 : 0; }

 private:
  static std::int64_t offset(std::size_t i) { return i % 4 == 1 ? 1 : 0; }
  std::vector<std::vector<float>> values_;
};

struct Move {
  const float* rates;
  float rate = 0;
  void prepare(std::int64_t group) { rate = rates[group]; }
  void operator()(float& p, float& v, const float& g) const {
    v = 0.9F * v + g;
    p -= rate * v;
  }
};

struct SumAndSquares {
  const float* rates;
  float rate = 0;
  void prepare(std::int64_t group) { rate = rates[group]; }
  Terms<2> operator()(float v) const { return {rate * v, v * v}; }
};

const float rates[] = {0.5F, 2};

// Runs pass(sets) on the same tensors each time; returns what is in all of them.
template <class Pass>
std::vector<float> moved(Pass&& pass) {
  Tensors p(1);
  Tensors v(100);
  Tensors g(200);
  TensorSets<float, float, const float> sets;
  for (std::size_t i = 0; i < std::size(Tensors::sizes); ++i)
    sets.push_back({{p.at(i), v.at(i), g.at(i)}, Tensors::sizes[i], Tensors::group(i)});
  pass(sets);
  std::vector<float> all = p.joined();
  for (const Tensors* t : {&v, &g}) {
    const std::vector<float> more = t->joined();
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

TEST(DeviceMultiUpdate, IsTheHostsUpdate) {
  const std::vector<float> expected = moved([&](const auto& sets) { multi_update(host, sets, Move{rates}); });
  const auto expect_same = [&](auto&& update) {
    const auto got = in_any_order([&](const Stream& stream) {
      return moved([&](const auto& sets) { update(stream, sets, Move{rates}); });
    });
    EXPECT_TRUE(identical(got, expected));
  };
  expect_same([](const auto&... arguments) { device::multi_update(arguments...); });
  // In lists of two sets each, and in one long list.
  expect_same([](const auto&... arguments) { device::detail::multi_update<100>(arguments...); });
  expect_same(
      [](const auto&... arguments) { device::detail::multi_update<device::list_bytes>(arguments...); });
}

TEST(DeviceMultiReduce, IsTheHostsSum) {
  Tensors t(3);
  TensorSets<const float> sets;
  for (std::size_t i = 0; i < std::size(Tensors::sizes); ++i)
    sets.push_back({{t.at(i)}, Tensors::sizes[i], Tensors::group(i)});
  std::vector<float> expected(2);
  multi_reduce<2, Sum>(host, sets, SumAndSquares{rates}, expected.data());
  const std::vector<float> sums = in_any_order([&](const Stream& stream) {
    std::vector<float> results(2, -1);
    device::multi_reduce<2, Sum>(stream, sets, SumAndSquares{rates}, results.data());
    return results;
  });
  EXPECT_TRUE(near(sums, expected, 1e-6));
  const std::vector<float> of_many_launches = in_any_order([&](const Stream& stream) {
    std::vector<float> results(2, -1);
    std::vector<double> partial(64);
    device::detail::multi_reduce<50, 2, Sum>(stream, sets, SumAndSquares{rates}, results.data(),
                                             partial.data());
    return results;
  });
  EXPECT_TRUE(identical(of_many_launches, sums)) << "the number of launches shows";
}

TEST(DeviceMultiReduce, MaximumAndNoElements) {
  Tensors t(3);
  t.at(6)[9000] = 5;
  TensorSets<const float> sets;
  for (std::size_t i = 0; i < std::size(Tensors::sizes); ++i) sets.push_back({{t.at(i)}, Tensors::sizes[i]});
  const auto itself = [](float v) { return Terms<1>{v}; };
  EmulatedGpu gpu(Fibers::Order::forward);
  float result = 0;
  device::multi_reduce<1, Maximum>(gpu.stream(), sets, itself, &result);
  EXPECT_EQ(result, 5);
  device::multi_reduce<1, Maximum>(gpu.stream(), TensorSets<const float>{{{nullptr}, 0}}, itself, &result);
  EXPECT_EQ(result, -INFINITY);
  device::multi_update(gpu.stream(), TensorSets<float>{}, [](float& v) { v = 1; });
}

}  // namespace
}  // namespace qtrain
