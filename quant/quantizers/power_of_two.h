// Scalar math of quantizers whose steps or levels are powers of two. No function here calls log2: exponents
// are read from the bits of the number, so powers of two are exact on every device.
#pragma once

#include "engine/kernels/math.h"

namespace qtrain::quant {

// Powers of two stay in this range, far from overflow and from denormal numbers.
inline constexpr float smallest_power = 0x1p-100F;
inline constexpr float largest_power = 0x1p100F;
inline constexpr float sqrt_half = 0.707106781F;
inline constexpr float ln_2 = 0.693147181F;

// P(v) = 2^round(log2 v) for v >= 0: up from v = sqrt(2) 2^n on, where no float lies, so that the rule for
// ties has no part in it. The sum carries into the exponent where the mantissa is above sqrt(2). 0 and
// denormal numbers give at most the smallest normal one; infinity and NaN stay.
QTRAIN_HOST_DEVICE float nearest_power(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  constexpr std::uint32_t above_sqrt_2 = 0x3FB504F4U;
  constexpr std::uint32_t two = 0x40000000U;
  const float power = std::bit_cast<float>((bits + (two - above_sqrt_2)) & 0x7F800000U);
  return v == v ? power : v;
}

// The largest power of two that is at most v > 0.
QTRAIN_HOST_DEVICE float power_below(float v) {
  return v == v ? std::bit_cast<float>(std::bit_cast<std::uint32_t>(v) & 0x7F800000U) : v;
}

// 2^n for a whole n, within 2^-126 and 2^126.
QTRAIN_HOST_DEVICE float power_of_two(float n) {
  if (n != n) return n;
  return std::bit_cast<float>((static_cast<std::int32_t>(clip(n, -126.0F, 126.0F)) + 127) << 23);
}

// log2 of a power of two. NaN stays.
QTRAIN_HOST_DEVICE float exponent_of(float power) {
  if (power != power) return power;
  return static_cast<float>(static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(power) >> 23) - 127);
}

// A learned number within its bounds. Its gradient is multiplied by `alive`: 1 strictly inside, else 0.
struct Bounded {
  float value;
  float alive;
};

struct Bounds {
  float low = 0;
  float high = 0;
  QTRAIN_HOST_DEVICE Bounded apply(float p) const {
    return {clip(p, low, high), p > low && p < high ? 1.0F : 0.0F};
  }
};

}  // namespace qtrain::quant
