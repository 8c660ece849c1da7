// The rounding of values in [0, 1] to 2^b levels that the DoReFa family shares, in the three schemes of
// scale-adjusted training (Jin, Yang, Liao 2019, "Towards efficient training for neural network
// quantization"):
//   original  a = 2^b - 1, Q(z) = round(a z) / a              levels 0 ... 1
//   modified  a = 2^b,     Q(z) = min(floor(a z), a - 1) / a  levels 0 ... 1 - 2^-b
//   centered  a = 2^b,     Q(z) = (min(floor(a z), a - 1) + 1/2) / a
// Rounding is half to even; the product a z is rounded to float32 first, as in the reference. The gradient of
// Q is taken as 1 everywhere (straight-through estimator).
#pragma once

#include "engine/kernels/math.h"
#include "quant/options.h"

namespace qtrain::quant {

enum class Scheme { original, modified, centered };

OptionSpec scheme_option(std::string default_scheme);
Scheme parse_scheme(const std::string& name);

template <Scheme scheme>
struct UnitQuantizer {
  float a = 1;
  Divisor by_a;

  UnitQuantizer() : UnitQuantizer(1) {}
  explicit UnitQuantizer(int bits) {
    a = std::ldexp(1.0F, bits) - (scheme == Scheme::original ? 1.0F : 0.0F);
    by_a.set(a);
  }

  QTRAIN_HOST_DEVICE float operator()(float z) const {
    if constexpr (scheme == Scheme::original) return by_a.divide(round_half_to_even(a * z));
    const float floored = floorf(a * z);
    const float index = floored > a - 1.0F ? a - 1.0F : floored;  // NaN passes
    return by_a.divide(scheme == Scheme::centered ? index + 0.5F : index);
  }
};

// Calls function(std::integral_constant<Scheme, scheme>) for a scheme known at run time.
template <class Function>
auto with_scheme(Scheme scheme, Function&& function) {
  switch (scheme) {
    case Scheme::original:
      return function(std::integral_constant<Scheme, Scheme::original>());
    case Scheme::modified:
      return function(std::integral_constant<Scheme, Scheme::modified>());
    case Scheme::centered:
      break;
  }
  return function(std::integral_constant<Scheme, Scheme::centered>());
}

}  // namespace qtrain::quant
