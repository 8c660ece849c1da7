// What the augmentations' options and draws share.
#pragma once

#include <fmt/format.h>

#include <cmath>

#include "engine/core/error.h"
#include "engine/core/rng.h"

namespace qtrain::data {

inline void require_in_range(bool ok, const char* option, double got, const char* expected) {
  if (ok) return;
  throw ValueError(
      {.where = option, .what = "option out of range", .got = fmt::format("{}", got), .expected = expected});
}

// Python's round(): half to even (the rounding mode that programs start in).
inline int round_even(double value) {
  return static_cast<int>(std::nearbyint(value));
}

// 0 .. count-1.
inline int draw_below(RandomStream& random, int count) {
  return static_cast<int>(random.below(static_cast<std::uint64_t>(count)));
}

}  // namespace qtrain::data
