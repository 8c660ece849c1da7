// sat: scale-adjusted training (Jin, Yang, Liao 2019, arXiv:1912.10207; code of AdaBits, Jin et al. 2020,
// arXiv:1912.09666). Weights: sat_weight.cpp. Activations: PACT with the gradient of the rounding error.
//
// Activations, alpha' = |alpha|:
//   one-sided     n = clip(x, 0, alpha') / alpha',        q = Q(n)
//   double-sided  n = clip(x, -alpha', alpha') / alpha',  q = 2 Q((n + 1) / 2) - 1
//   y = alpha' q
// Backward: dL/dx = g strictly inside the range, else 0;
//   dL/dalpha = sign(alpha) sum g ((q - n) + H), H = 1 where x >= alpha', -1 where x <= -alpha'
//   (double-sided), else 0.
// At 32 bits: y = x, or with pact_fp the clipping alone, whose dL/dalpha is sign(alpha) sum g H.
// alpha = 0 counts as 1e-8; NaN passes.
#include <array>

#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/quantizers/sat_weight.h"
#include "quant/registry.h"
#include "quant/unit_quantizer.h"

namespace qtrain::quant {
namespace {

constexpr float smallest_alpha = 1e-8F;
constexpr float largest_alpha = 1e30F;

template <Scheme scheme, bool double_side, bool rounds>
struct SatActivationMath {
  std::array<const float*, 1> parameters{};
  UnitQuantizer<scheme> unit{};
  float alpha = 1;
  float sign = 1;
  Divisor by_alpha;

  QTRAIN_HOST_DEVICE void prepare() {
    const float raw = *parameters[0];
    sign = sign_of(raw);
    alpha = clip(fabsf(raw), smallest_alpha, largest_alpha);
    by_alpha.set(alpha);
  }

  QTRAIN_HOST_DEVICE float normalized(float x) const {
    return by_alpha.divide(clip(x, double_side ? -alpha : 0.0F, alpha));
  }

  QTRAIN_HOST_DEVICE float quantized(float n) const {
    if constexpr (!rounds) return n;
    if constexpr (double_side) return 2.0F * unit((n + 1.0F) / 2.0F) - 1.0F;
    return unit(n);
  }

  QTRAIN_HOST_DEVICE float forward(float x) const {
    if constexpr (!rounds) return clip(x, double_side ? -alpha : 0.0F, alpha);
    return alpha * quantized(normalized(x));
  }

  QTRAIN_HOST_DEVICE Mapped<1> backward(float x, float g) const {
    const float n = normalized(x);
    const float above = x >= alpha ? 1.0F : 0.0F;
    const float below = double_side && x <= -alpha ? -1.0F : 0.0F;
    const float rounding_error = rounds ? quantized(n) - n : 0.0F;
    const bool inside = x > (double_side ? -alpha : 0.0F) && x < alpha;
    return {inside ? g : 0.0F, {sign * g * (rounding_error + (above + below))}};
  }
};

class SatActivation final : public Quantizer {
 public:
  explicit SatActivation(const QuantizerSpec& spec)
      : Quantizer(spec.bits),
        scheme_(parse_scheme(spec.options.choice("scheme"))),
        double_side_(spec.options.flag("double_side") && spec.layer == LayerKind::convolution),
        pact_fp_(spec.options.flag("pact_fp")),
        alpha_(add_parameter("alpha", initial_alpha(spec))) {}

  std::string kind() const override { return "SatActivation"; }
  std::string describe() const override { return "sat activation, " + std::to_string(bits()) + " bits"; }

  Tensor forward(const Tensor& x) override {
    if (bits() >= float_bits && !pact_fp_) return x;
    return with_scheme(scheme_, [&](auto scheme) {
      const auto run = [&](auto double_side) {
        constexpr bool both = decltype(double_side)::value;
        if (bits() < float_bits)
          return apply(
              SatActivationMath<scheme.value, both, true>{.parameters = {},
                                                          .unit = UnitQuantizer<scheme.value>(bits())},
              x);
        return apply(SatActivationMath<scheme.value, both, false>(), x);
      };
      return double_side_ ? run(std::true_type()) : run(std::false_type());
    });
  }

 private:
  static Tensor initial_alpha(const QuantizerSpec& spec) {
    const double given = spec.options.real("alpha");
    const double automatic = spec.layer == LayerKind::linear ? 10.0 : 8.0;
    Tensor alpha = Tensor::full({1}, static_cast<float>(given > 0 ? given : automatic));
    alpha.set_requires_grad(true);
    return alpha;
  }

  template <class Math>
  Tensor apply(const Math& math, const Tensor& x) {
    return fake_quantize<1>("sat activation", x, math, {alpha_});
  }

  Scheme scheme_;
  bool double_side_;
  bool pact_fp_;
  const Tensor& alpha_;
};

const Registration registration{{
    .name = "sat",
    .summary = "scale-adjusted training: tanh-normalized weights, activations clipped at a learned alpha",
    .source = "Jin, Yang, Liao 2019, arXiv:1912.10207; github deJQK/AdaBits",
    .weight_options = sat_weight_options(),
    .activation_options = {scheme_option("original"),
                           {.name = "double_side",
                            .type = OptionType::boolean,
                            .default_value = "false",
                            .help = "clip at -alpha too, for inputs that can be negative; convolutions only",
                            .choices = {}},
                           {.name = "pact_fp",
                            .type = OptionType::boolean,
                            .default_value = "false",
                            .help = "at 32 bits: clip at alpha without rounding",
                            .choices = {}},
                           {.name = "alpha",
                            .type = OptionType::real,
                            .default_value = "0",
                            .help = "initial clipping level; 0: 8 for convolutions, 10 for linear layers",
                            .choices = {}}},
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      if (spec.role == Role::weight) return make_sat_weight(spec);
      return std::make_shared<SatActivation>(spec);
    },
    .roles = {Role::weight, Role::activation},
    // Pixels already have 8 bits; the classifier's weights keep 8.
    .first_layer = {.quantize_input = false, .least_weight_bits = 8},
    .last_layer = {.quantize_input = true, .least_weight_bits = 8},
    // The reference starts from a trained float network. From random weights two of its defaults stand in the
    // way: `modified` rounds down, so all weights of a layer are off to the same side by about half a level;
    // and 1/sqrt(fan-out) for the classifier makes large logits when there are few classes. See
    // docs/quantizers/sat.md.
    .from_scratch = {{"scheme", "centered"}, {"rescale", "stddev"}, {"rescale_conv", "none"}},
}};

}  // namespace
}  // namespace qtrain::quant
