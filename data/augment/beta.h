// The beta distribution, which Mixup and CutMix draw their shares from.
#pragma once

#include "engine/core/rng.h"

namespace qtrain::data {

// The logarithm of a gamma variate of that shape, above 0, and scale 1 (Marsaglia and Tsang, "A simple method
// for generating gamma variables", 2000). In logarithms, as small shapes give numbers that no double holds.
double draw_log_gamma(RandomStream& random, double shape);

// Beta(a, b) = X / (X + Y) with X ~ gamma(a), Y ~ gamma(b); X is drawn first. 0..1.
double draw_beta(RandomStream& random, double a, double b);

}  // namespace qtrain::data
