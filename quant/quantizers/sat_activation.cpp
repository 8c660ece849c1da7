// Activations of scale-adjusted training: PACT with the gradient of the rounding error. alpha' = |alpha|:
//   one-sided     n = clip(x, 0, alpha') / alpha',        q = Q(n)
//   double-sided  n = clip(x, -alpha', alpha') / alpha',  q = 2 Q((n + 1) / 2) - 1
//   y = alpha' q
// Backward: dL/dx = g strictly inside the range, else 0;
//   dL/dalpha = sign(alpha) sum g ((q - n) + H), H = 1 where x >= alpha', -1 where x <= -alpha'
//   (double-sided), else 0.
// At 32 bits: y = x, or with pact_fp the clipping alone, whose dL/dalpha is sign(alpha) sum g H.
// alpha = 0 counts as 1e-8; NaN passes.
#include "quant/quantizers/sat_activation.h"

#include <array>

#include "quant/fake_quantize.h"

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

Tensor initial_alpha(const QuantizerSpec& spec, std::int64_t entries) {
  const double given = spec.options.real("alpha");
  const double automatic = spec.layer == LayerKind::linear ? 10.0 : 8.0;
  Tensor alpha = Tensor::full({entries}, static_cast<float>(given > 0 ? given : automatic));
  alpha.set_requires_grad(true);
  return alpha;
}

}  // namespace

SatActivation::SatActivation(const QuantizerSpec& spec, std::int64_t entries)
    : Quantizer(spec.bits),
      scheme_(parse_scheme(spec.options.choice("scheme"))),
      double_side_(spec.options.flag("double_side") && spec.layer == LayerKind::convolution),
      pact_fp_(spec.options.flag("pact_fp")),
      alpha_(add_parameter("alpha", initial_alpha(spec, entries))) {}

template <class Math>
Tensor SatActivation::apply(const Math& math, const Tensor& x) const {
  return fake_quantize<1>("sat activation", x, math, {alpha_in_use()});
}

Tensor SatActivation::forward(const Tensor& x) {
  if (bits() >= float_bits && !pact_fp_) return x;
  const auto run = [&](auto double_side) {
    constexpr bool both = decltype(double_side)::value;
    if (bits() >= float_bits) return apply(SatActivationMath<Scheme::original, both, false>(), x);
    return with_scheme(scheme_, [&](auto scheme) {
      return apply(SatActivationMath<scheme.value, both, true>{.parameters = {},
                                                               .unit = UnitQuantizer<scheme.value>(bits())},
                   x);
    });
  };
  return double_side_ ? run(std::true_type()) : run(std::false_type());
}

std::vector<OptionSpec> sat_activation_options() {
  return {scheme_option("original"),
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
           .choices = {}}};
}

}  // namespace qtrain::quant
