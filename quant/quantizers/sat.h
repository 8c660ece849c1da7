// What sat registers; adabits is sat but for its activations.
#pragma once

#include "quant/registry.h"

namespace qtrain::quant {

QuantizerInfo sat_info();

}  // namespace qtrain::quant
