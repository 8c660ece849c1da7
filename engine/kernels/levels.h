// Finding the level of a value among the sorted levels of a functor, and the numbering of the sums over
// codes. See codes.h for both.
#pragma once

#include <cstdint>
#include <utility>

#include "engine/core/host_device.h"

namespace qtrain {

QTRAIN_HOST_DEVICE constexpr int pair_count(int bits) {
  return bits * (bits + 1) / 2;
}
QTRAIN_HOST_DEVICE constexpr int code_sums(int bits) {
  return pair_count(bits) + bits + 1;
}
QTRAIN_HOST_DEVICE constexpr int pair_position(int bits, int j, int k) {
  return j * bits - j * (j - 1) / 2 + k - j;
}

namespace detail {

// The last threshold below x, by halving.
template <int bits, class F, std::size_t... step>
QTRAIN_HOST_DEVICE std::int32_t level_of(const F& f, float x, std::index_sequence<step...>) {
  std::int32_t i = 0;
  ((i += x > f.thresholds[i + (1 << bits >> (step + 1))] ? 1 << bits >> (step + 1) : 0), ...);
  return i;
}
template <int bits, class F>
QTRAIN_HOST_DEVICE std::int32_t level_of(const F& f, float x) {
  return level_of<bits>(f, x, std::make_index_sequence<bits>());
}

// NaN stays.
template <class F>
QTRAIN_HOST_DEVICE float value_at(const F& f, std::int32_t level, float x) {
  return x == x ? f.levels[level] : x;
}

}  // namespace detail

}  // namespace qtrain
