// The activation half of sat, of which adabits makes a variant with several clipping levels; see
// sat_activation.cpp.
#pragma once

#include "quant/quantizer.h"
#include "quant/unit_quantizer.h"

namespace qtrain::quant {

class SatActivation : public Quantizer {
 public:
  explicit SatActivation(const QuantizerSpec& spec) : SatActivation(spec, 1) {}
  std::string kind() const override { return "SatActivation"; }
  std::string describe() const override { return "sat activation, " + std::to_string(bits()) + " bits"; }
  Tensor forward(const Tensor& x) override;
  bool takes_bf16() const override { return true; }

 protected:
  // With `entries` clipping levels in the parameter `alpha`.
  SatActivation(const QuantizerSpec& spec, std::int64_t entries);
  const Tensor& alpha() const { return alpha_; }
  // The clipping level of the next forward, of one element.
  virtual Tensor alpha_in_use() const { return alpha_; }

 private:
  template <class Math>
  Tensor apply(const Math& math, const Tensor& x) const;

  Scheme scheme_;
  bool double_side_;
  bool pact_fp_;
  const Tensor& alpha_;
};

std::vector<OptionSpec> sat_activation_options();

}  // namespace qtrain::quant
