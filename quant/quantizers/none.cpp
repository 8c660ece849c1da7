// none: passes its input through. For the side (weights or activations) that stays float.
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

class Identity final : public Quantizer {
 public:
  Identity() : Quantizer(float_bits) {}
  std::string kind() const override { return "NoQuantizer"; }
  void set_bits(int /*bits*/) override {}
  Tensor forward(const Tensor& x) override { return x; }
};

const Registration registration{{
    .name = "none",
    .summary = "no quantization",
    .source = "",
    .weight_options = {},
    .activation_options = {},
    .make = [](const QuantizerSpec&) -> std::shared_ptr<Quantizer> { return std::make_shared<Identity>(); },
}};

}  // namespace
}  // namespace qtrain::quant
