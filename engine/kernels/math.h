// Scalar mathematics shared by every device: the same float32 operations in the same order, so that the CPU
// tests test what the GPU runs. No function here branches, so loops over them vectorize. The library is
// compiled without contraction (-ffp-contract=off): fused multiply-adds appear only where written.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "engine/core/host_device.h"

namespace qtrain {

// Round to nearest, ties to even (what torch.round does).
QTRAIN_HOST_DEVICE float round_half_to_even(float x) {
  return rintf(x);
}

// Round to nearest, ties away from zero (what NNabla does): exact also for 0.49999997 and for |x| >= 2^23.
QTRAIN_HOST_DEVICE float round_half_away(float x) {
  const float whole = truncf(x);
  return fabsf(x - whole) >= 0.5F ? whole + copysignf(1.0F, x) : whole;
}

QTRAIN_HOST_DEVICE float sign_of(float x) {
  return x > 0 ? 1.0F : (x < 0 ? -1.0F : 0.0F);
}

// NaN passes through, unlike fminf/fmaxf.
QTRAIN_HOST_DEVICE float clip(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

// x / d, correctly rounded like the division itself, for one d and many x: three multiplications instead of a
// division (Markstein 1990: with y = 1/d rounded and q = x*y, the remainder r = x - q*d is exact and q + r*y
// is x/d rounded). For finite d with |d| in [1e-30, 1e30]; NaN and infinite x give NaN.
struct Divisor {
  float d = 1;
  float inverse = 1;
  QTRAIN_HOST_DEVICE void set(float divisor) {
    d = divisor;
    inverse = 1.0F / divisor;
  }
  QTRAIN_HOST_DEVICE float divide(float x) const {
    const float q = x * inverse;
    return fmaf(fmaf(-q, d, x), inverse, q);
  }
};

// What exp and tanh start with: x = k ln 2 + r with |r| <= ln 2 / 2 in two-part arithmetic, and p of
// exp(r) = 1 + r + r^2 p, its Taylor polynomial to r^7.
struct ReducedExponent {
  float k, r, p;
};
QTRAIN_HOST_DEVICE ReducedExponent reduce_exponent(float x) {
  const float k = rintf(x * 1.44269504F);
  const float r = fmaf(k, -1.42860677e-6F, fmaf(k, -0.693145752F, x));
  float p = 1.98412698e-4F;
  p = fmaf(p, r, 1.38888889e-3F);
  p = fmaf(p, r, 8.33333333e-3F);
  p = fmaf(p, r, 4.16666667e-2F);
  p = fmaf(p, r, 1.66666667e-1F);
  return {k, r, fmaf(p, r, 0.5F)};
}

// exp for x <= 0; relative error below 2 units in the last place, 0 below -104.
QTRAIN_HOST_DEVICE float exp_nonpositive(float x) {
  const float bounded = x < -104.0F ? -104.0F : x;
  const auto [k, r, p2] = reduce_exponent(bounded);
  const float p = fmaf(fmaf(p2, r, 1.0F), r, 1.0F);
  // 2^k in two steps, so that results down to the denormals stay right.
  const auto exponent = static_cast<std::int32_t>(k);
  const std::int32_t half = exponent / 2;
  const float scale0 = std::bit_cast<float>((half + 127) << 23);
  const float scale1 = std::bit_cast<float>((exponent - half + 127) << 23);
  return p * scale0 * scale1;
}

QTRAIN_HOST_DEVICE float sigmoid_of(float x) {
  const float e = exp_nonpositive(-fabsf(x));
  const float small = e / (1.0F + e);  // sigmoid(-|x|)
  return x < 0 ? small : (x >= 0 ? 1.0F - small : x);
}

// tanh, error below 2.5 units in the last place; exactly +-1 from |x| = 9.02 on; NaN passes.
//   tanh |x| = E / (E + 2) with E = exp(2|x|) - 1, which loses no digits near 0
//   E = 2^k P + (2^k - 1) with 2|x| = k ln 2 + r and P = exp(r) - 1 by its Taylor polynomial to r^7
QTRAIN_HOST_DEVICE float tanh_of(float x) {
  const float a = fabsf(x);
  const float bounded = a > 9.02F ? 18.04F : 2.0F * a;
  const auto [k, r, p2] = reduce_exponent(bounded);
  const float p = fmaf(p2 * r, r, r);
  const float power = std::bit_cast<float>((static_cast<std::int32_t>(k) + 127) << 23);
  const float e = fmaf(power, p, power - 1.0F);
  return copysignf(e / (e + 2.0F), x);
}

}  // namespace qtrain
