// What pact shares with dorefa; see dorefa.cpp.
#pragma once

#include "engine/kernels/math.h"
#include "quant/quantizer.h"

namespace qtrain::quant {

// z in [0, a] to n + 1 evenly spaced levels: rne(z n / a) a / n, each step rounded to float32 in this order.
// 1e-30 <= a <= 1e25.
struct EvenLevels {
  float n = 1;
  float a = 1;
  Divisor by_a;
  Divisor by_n;

  QTRAIN_HOST_DEVICE void set_levels(float levels) {
    n = levels - 1.0F;
    by_n.set(n);
  }
  QTRAIN_HOST_DEVICE void set_range(float range) {
    a = range;
    by_a.set(range);
  }
  QTRAIN_HOST_DEVICE float operator()(float z) const {
    return by_n.divide(round_half_to_even(by_a.divide(z * n)) * a);
  }
};

std::shared_ptr<Quantizer> make_dorefa_weight(const QuantizerSpec& spec);
std::vector<OptionSpec> dorefa_weight_options();

OptionSpec boundary_option(std::string help);
// ValueError unless it is in 1e-6 ... 1e6.
float boundary_of(std::string_view op, const Options& options);

}  // namespace qtrain::quant
