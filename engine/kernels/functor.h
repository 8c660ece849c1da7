// What the functors of the elementwise machinery return, how results are combined, and how they are prepared.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>

#include "engine/core/host_device.h"

namespace qtrain {

// Elements of which a reduction first makes one result, on every device.
inline constexpr std::int64_t reduction_block = 8192;

// The K terms that one element adds to a reduction, K = 1 to 8: Terms<2>{a, b}. Plain members and passed by
// value: the compiler keeps them in vector registers, which it can't do with an array or anything whose
// address is taken.
// clang-format off
template <int K> struct Terms;
template <> struct Terms<1> { float t0; };
template <> struct Terms<2> { float t0, t1; };
template <> struct Terms<3> { float t0, t1, t2; };
template <> struct Terms<4> { float t0, t1, t2, t3; };
template <> struct Terms<5> { float t0, t1, t2, t3, t4; };
template <> struct Terms<6> { float t0, t1, t2, t3, t4, t5; };
template <> struct Terms<7> { float t0, t1, t2, t3, t4, t5, t6; };
template <> struct Terms<8> { float t0, t1, t2, t3, t4, t5, t6, t7; };

template <int k, int K>
QTRAIN_HOST_DEVICE float term(Terms<K> terms) {
  if constexpr (k == 0) return terms.t0;
  else if constexpr (k == 1) return terms.t1;
  else if constexpr (k == 2) return terms.t2;
  else if constexpr (k == 3) return terms.t3;
  else if constexpr (k == 4) return terms.t4;
  else if constexpr (k == 5) return terms.t5;
  else if constexpr (k == 6) return terms.t6;
  else return terms.t7;
}
// clang-format on

// What a functor of map_reduce returns.
template <int K>
struct Mapped {
  float value;
  Terms<K> terms;
};

struct Sum {
  static constexpr float identity = 0;
  QTRAIN_HOST_DEVICE static float combine(float a, float b) { return a + b; }
  QTRAIN_HOST_DEVICE static double combine_blocks(double a, double b) { return a + b; }
};

// NaN passes: the maximum of anything with a NaN is NaN.
struct Maximum {
  static constexpr float identity = -std::numeric_limits<float>::infinity();
  QTRAIN_HOST_DEVICE static float combine(float a, float b) { return (a >= b || a != a) ? a : b; }
  QTRAIN_HOST_DEVICE static double combine_blocks(double a, double b) { return (a >= b || a != a) ? a : b; }
};

struct Minimum {
  static constexpr float identity = std::numeric_limits<float>::infinity();
  QTRAIN_HOST_DEVICE static float combine(float a, float b) { return (a <= b || a != a) ? a : b; }
  QTRAIN_HOST_DEVICE static double combine_blocks(double a, double b) { return (a <= b || a != a) ? a : b; }
};

namespace detail {

// sums[k] combined with the k-th term.
template <class Combine, int K, std::size_t... k>
QTRAIN_HOST_DEVICE void add_terms(float* sums, Terms<K> terms, std::index_sequence<k...>) {
  ((sums[k] = Combine::combine(sums[k], term<static_cast<int>(k)>(terms))), ...);
}
template <class Combine, int K>
QTRAIN_HOST_DEVICE void add_terms(float* sums, Terms<K> terms) {
  add_terms<Combine>(sums, terms, std::make_index_sequence<static_cast<std::size_t>(K)>());
}

template <class F>
QTRAIN_HOST_DEVICE void prepare(F& f) {
  if constexpr (requires { f.prepare(); }) f.prepare();
}

template <class F>
QTRAIN_HOST_DEVICE void prepare_group(F& f, std::int64_t group) {
  if constexpr (requires { f.prepare(group); })
    f.prepare(group);
  else
    prepare(f);
}

}  // namespace detail

}  // namespace qtrain
