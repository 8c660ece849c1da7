// sat: scale-adjusted training (Jin, Yang, Liao 2019, arXiv:1912.10207; code of AdaBits, Jin et al. 2020,
// arXiv:1912.09666). Weights: sat_weight.cpp. Activations: sat_activation.cpp.
#include "quant/quantizers/sat.h"

#include "quant/quantizers/sat_activation.h"
#include "quant/quantizers/sat_weight.h"

namespace qtrain::quant {

QuantizerInfo sat_info() {
  return {
      .name = "sat",
      .summary = "scale-adjusted training: tanh-normalized weights, activations clipped at a learned alpha",
      .source = "Jin, Yang, Liao 2019, arXiv:1912.10207; github deJQK/AdaBits",
      .weight_options = sat_weight_options(),
      .activation_options = sat_activation_options(),
      .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
        if (spec.role == Role::weight) return make_sat_weight(spec);
        return std::make_shared<SatActivation>(spec);
      },
      .roles = {Role::weight, Role::activation},
      // Pixels already have 8 bits; the classifier's weights keep 8.
      .first_layer = {.quantize_input = false, .least_weight_bits = 8},
      .last_layer = {.quantize_input = true, .least_weight_bits = 8},
      // The reference starts from a trained float network. From random weights two of its defaults stand in
      // the way: `modified` rounds down, so all weights of a layer are off to the same side by about half a
      // level; and 1/sqrt(fan-out) for the classifier makes large logits when there are few classes. See
      // docs/quantizers/sat.md.
      .from_scratch = {{"scheme", "centered"}, {"rescale", "stddev"}, {"rescale_conv", "none"}},
  };
}

namespace {

const Registration registration{sat_info()};

}  // namespace
}  // namespace qtrain::quant
