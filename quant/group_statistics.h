// Statistics of a tensor's groups: constants for the gradient, off the tape.
#pragma once

#include "engine/core/tensor.h"
#include "engine/kernels/grouped.h"

namespace qtrain::quant {

struct Spread {
  Tensor mean;  // [groups]
  Tensor std;   // with the divisor n - 1; 0 for a group of one element
};

Spread spread_of(const Tensor& x, const Grouping& grouping);

}  // namespace qtrain::quant
