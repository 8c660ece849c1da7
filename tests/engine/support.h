// What the engine's tests share: reproducible random tensors and comparison with reference values.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "engine/core/rng.h"
#include "engine/core/tensor.h"
#include "engine/kernels/parallel.h"

namespace qtrain::testing_support {

// Uniform in [low, high), at least `margin` away from each of the `kinks`.
struct Range {
  double low = -1;
  double high = 1;
  std::vector<double> kinks{};
  double margin = 0.05;
};

inline std::vector<float> random_values(std::int64_t count, std::uint64_t seed, const Range& range = {}) {
  RandomStream random(seed, RandomPurpose::user);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) {
    double x = 0;
    const auto near_kink = [&](double kink) { return std::abs(x - kink) < range.margin; };
    do x = random.uniform(range.low, range.high);
    while (std::ranges::any_of(range.kinks, near_kink));
    v = static_cast<float>(x);
  }
  return values;
}

inline Tensor random_tensor(const Shape& shape, std::uint64_t seed, const Range& range = {},
                            Device device = {}) {
  return Tensor::from_values(shape, random_values(shape.numel(), seed, range), device);
}

// Differences relative to the largest reference value; names the worst element.
template <class Reference>
::testing::AssertionResult near(const std::vector<float>& got, const std::vector<Reference>& want,
                                double tolerance) {
  if (got.size() != want.size())
    return ::testing::AssertionFailure() << got.size() << " values, expected " << want.size();
  double largest = 0;
  for (const Reference w : want) largest = std::max(largest, std::abs(static_cast<double>(w)));
  double worst = 0;
  std::size_t place = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    if (!(error <= worst)) {  // also where it is NaN
      worst = error;
      place = i;
    }
  }
  if (worst <= tolerance * std::max(largest, 1e-6)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "element " << place << " is " << got[place] << ", expected "
                                       << want[place] << " (largest " << largest << ")";
}

template <class Reference>
::testing::AssertionResult near(const Tensor& got, const std::vector<Reference>& want, double tolerance) {
  return near(got.values(), want, tolerance);
}

inline ::testing::AssertionResult near(const Tensor& got, const Tensor& want, double tolerance) {
  if (got.shape() != want.shape())
    return ::testing::AssertionFailure() << got.str() << ", expected " << want.str();
  return near(got.values(), want.values(), tolerance);
}

// The number of threads while it lives.
class Threads {
 public:
  explicit Threads(int count) : before_(thread_count()) { set_thread_count(count); }
  ~Threads() { set_thread_count(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

// The same bits, NaN included.
template <class T>
bool identical(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Runs `compute` with 1, 2, 3 and 7 threads and expects identical results; returns them.
template <class Compute>
std::vector<float> on_any_threads(Compute&& compute) {
  std::vector<float> first;
  for (const int count : {1, 2, 3, 7}) {
    const Threads threads(count);
    const std::vector<float> result = compute();
    if (count == 1) first = result;
    EXPECT_TRUE(identical(result, first)) << count << " threads differ from one";
  }
  return first;
}

}  // namespace qtrain::testing_support
