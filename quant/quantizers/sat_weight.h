// The weight half of sat; see sat.cpp.
#pragma once

#include "quant/quantizer.h"

namespace qtrain::quant {

std::shared_ptr<Quantizer> make_sat_weight(const QuantizerSpec& spec);
std::vector<OptionSpec> sat_weight_options();

}  // namespace qtrain::quant
