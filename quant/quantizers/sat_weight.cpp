// Weights of scale-adjusted training: y = s v with v of quant/tanh_weight.h and Q of quant/unit_quantizer.h.
// s scales v to standard deviation N (1/sqrt(fan-out) or that of w); it is a constant for the gradient. A
// tensor without spread has s = 1.
#include "quant/quantizers/sat_weight.h"

#include <array>
#include <cmath>

#include "engine/ops/arithmetic.h"
#include "quant/fake_quantize.h"
#include "quant/group_statistics.h"
#include "quant/tanh_weight.h"
#include "quant/unit_quantizer.h"

namespace qtrain::quant {
namespace {

enum class Rescale { none, constant, stddev };

// y = s w: at 32 bits without clamping.
struct RescaleMath {
  std::array<const float*, 1> constants{};
  float s = 1;
  QTRAIN_HOST_DEVICE void prepare() { s = *constants[0]; }
  QTRAIN_HOST_DEVICE float forward(float w) const { return s * w; }
  QTRAIN_HOST_DEVICE float backward(float /*w*/, float g) const { return s * g; }
};

// s from two deviations, or from one and N.
struct SpreadRatio {
  QTRAIN_HOST_DEVICE float operator()(float n, float spread) const { return spread > 0 ? n / spread : 1.0F; }
};
struct SpreadRatioTo {
  float n;
  QTRAIN_HOST_DEVICE float operator()(float spread) const { return SpreadRatio()(n, spread); }
};

class SatWeight final : public Quantizer {
 public:
  explicit SatWeight(const QuantizerSpec& spec)
      : Quantizer(spec.bits),
        scheme_(parse_scheme(spec.options.choice("scheme"))),
        clamp_(spec.options.flag("clamp")),
        layer_(spec.layer) {
    std::string rescale = spec.options.choice("rescale");
    if (layer_ == LayerKind::convolution && spec.options.choice("rescale_conv") != "auto")
      rescale = spec.options.choice("rescale_conv");
    if (rescale == "auto") rescale = layer_ == LayerKind::linear ? "constant" : "none";
    rescale_ =
        rescale == "none" ? Rescale::none : (rescale == "constant" ? Rescale::constant : Rescale::stddev);
  }

  std::string kind() const override { return "SatWeight"; }
  std::string describe() const override { return "sat weight, " + std::to_string(bits()) + " bits"; }

  Tensor forward(const Tensor& w) override {
    check::tensor("sat weight", "w", w);
    check::sizes(w.numel() > 0, "sat weight", "an empty tensor", w.str(), "at least one weight");
    const bool rounds = bits() < float_bits;
    // A linear layer in evaluation keeps v and divides its bias by s instead.
    const bool applies = rescale_ != Rescale::none && (layer_ == LayerKind::convolution || is_training());
    if (!rounds && !clamp_) {
      scale_ = rescale_ == Rescale::none ? Tensor() : scale_of(w, w);
      return applies ? fake_quantize<0>("sat weight", w, RescaleMath(), {}, {}, {scale_}) : w;
    }
    const TanhStatistics statistics = tanh_statistics(w);
    const Tensor y =
        rounds ? with_scheme(scheme_,
                             [&](auto scheme) {
                               return tanh_normalized(w, statistics, UnitQuantizer<scheme.value>(bits()));
                             })
               : tanh_normalized(w, statistics, Unrounded());
    scale_ = rescale_ == Rescale::none ? Tensor() : scale_of(w, y);
    if (applies) multiply_in_place(y, scale_);
    return record_tanh_weight("sat weight", w, y, statistics, applies ? scale_ : Tensor());
  }

  Tensor layer_bias(const Tensor& bias) override {
    const bool divides = rescale_ != Rescale::none && layer_ == LayerKind::linear && !is_training();
    return divides && bias.defined() ? divide(bias, scale_) : bias;
  }

 private:
  // s = N / std(v); 1 where v has no spread.
  Tensor scale_of(const Tensor& w, const Tensor& v) const {
    Tensor s = spread_of(v, {}).std;
    const Stream stream = backend(w.device()).stream();
    if (rescale_ == Rescale::stddev) {
      const Tensor n = spread_of(w, {}).std;
      map(stream, 1, SpreadRatio(), s.data<float>(), n.data<float>(), s.data<float>());
    } else {
      // Fan-out: out_channels * kh * kw, or out_features.
      const std::int64_t fan_out = w.dim(0) * (w.rank() == 4 ? w.dim(2) * w.dim(3) : 1);
      const float n = 1.0F / std::sqrt(static_cast<float>(fan_out));
      map(stream, 1, SpreadRatioTo{n}, s.data<float>(), s.data<float>());
    }
    return s;
  }

  Scheme scheme_;
  bool clamp_;
  LayerKind layer_;
  Rescale rescale_ = Rescale::none;
  Tensor scale_;  // of the last forward
};

}  // namespace

std::shared_ptr<Quantizer> make_sat_weight(const QuantizerSpec& spec) {
  return std::make_shared<SatWeight>(spec);
}

std::vector<OptionSpec> sat_weight_options() {
  const std::vector<std::string> rescales{"auto", "none", "constant", "stddev"};
  return {scheme_option("modified"),
          {.name = "clamp",
           .type = OptionType::boolean,
           .default_value = "true",
           .help = "at 32 bits: tanh(w)/max|tanh(w)| instead of w",
           .choices = {}},
          {.name = "rescale",
           .type = OptionType::choice,
           .default_value = "auto",
           .help = "scale to a standard deviation of 1/sqrt(fan-out) or w's own; auto: constant for linear "
                   "layers, none for convolutions",
           .choices = rescales},
          {.name = "rescale_conv",
           .type = OptionType::choice,
           .default_value = "auto",
           .help = "the same for convolutions only; auto: as rescale",
           .choices = rescales}};
}

}  // namespace qtrain::quant
