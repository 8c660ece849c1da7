// xnor: weights and activations of one bit (XNOR-Net: Rastegari, Ordonez, Redmon, Farhadi 2016,
// arXiv:1603.05279; gradients also of Bi-Real Net: Liu et al. 2018, arXiv:1808.00278; learned gain:
// XNOR-Net++: Bulat, Tzimiropoulos 2019, arXiv:1909.13863; code of QTool, github
// aim-uofa/model-quantization).
//
//   s = -1 if x < 0 else +1        y = s E
//   weights      E = mean |x| of the group
//   activations  E = 1             scale=none
//                E = mean |x| of the position over its channels     scale=channel
//                E = mean |x| of the channel over its positions     scale=resolution
// Backward, E counting as a constant:
//   grad=none      dL/dx = g
//   grad=STE       dL/dx = g where |x| < 1, else 0
//   grad=triangle  dL/dx = (2 - 2|x|) g where |x| < 1, else 0      (activations)
// With adaptive=var-mean x is the normalized weight; gamma is a learned gain on y (grouped_quantizer.h).
#include <bit>

#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/grouped_quantizer.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

enum class Slope { none, box, triangle };

template <Slope slope>
struct SignMath {
  static constexpr bool straight_through = slope == Slope::none;
  std::array<const float*, 1> constants{};  // E of each group
  float e = 1;

  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { e = constants[0][group]; }
  QTRAIN_HOST_DEVICE float forward(float x) const {
    const float y = x < 0 ? -e : e;
    return x == x ? y : x;
  }
  QTRAIN_HOST_DEVICE float backward(float x, float g) const {
    const float a = fabsf(x);
    const float share = slope == Slope::triangle ? 2.0F - 2.0F * a : 1.0F;
    return a < 1.0F ? g * share : 0.0F;
  }
};

// Mean |x| of each group. Elements are added up as parts of a power of 2, which loses nothing: so the largest
// floats have a mean, too.
Tensor mean_magnitude(const Tensor& x, const Grouping& grouping) {
  const Stream stream = backend(x.device()).stream();
  Tensor means = Tensor::empty({grouping.groups()}, DType::f32, x.device());
  const auto count = static_cast<std::uint64_t>(x.numel() / grouping.groups());
  const float part = 1.0F / static_cast<float>(std::bit_ceil(count));
  const float parts = static_cast<float>(count) * part;
  reduce_groups<1, Sum>(stream, x.numel(), grouping, ScaledMagnitude{part}, means.data<float>(),
                        x.data<float>());
  map(stream, grouping.groups(), Quotient{parts}, means.data<float>(), means.data<float>());
  return means;
}

class Xnor final : public GroupedQuantizer {
 public:
  explicit Xnor(const QuantizerSpec& spec)
      : GroupedQuantizer(spec.role == Role::weight ? "xnor weight" : "xnor activation", spec),
        slope_(parse_slope(spec.options.choice("grad"))),
        scale_(spec.role == Role::activation ? spec.options.choice("scale") : "group") {
    require_one_bit();
    check::value(scale_ != "resolution" || layer() != LayerKind::linear, op(),
                 "scale=resolution: a linear layer has one position, so every value would be its own scale",
                 "a linear layer", "scale=none or channel");
  }

  void set_bits(int bits) override {
    const int before = this->bits();
    GroupedQuantizer::set_bits(bits);
    try {
      require_one_bit();
    } catch (const ValueError&) {
      GroupedQuantizer::set_bits(before);
      throw;
    }
  }

 protected:
  bool ignores_zeros() const override { return false; }  // 0 becomes +E
  bool quantizes_bf16() const override { return scale_ == "none"; }

  Tensor quantize(const Tensor& x, const Grouping& groups) override {
    if (scale_ == "none") return run(x, {}, Tensor::full({1}, 1, x.device()));
    const Grouping scales = grouping_of_scale(x, groups);
    return run(x, scales, mean_magnitude(x, scales));
  }

  // Scales are means that the zeros count in.
  Tensor quantize_padded(const Tensor& x, const Border& padding) override {
    if (scale_ != "none") return GroupedQuantizer::quantize_padded(x, padding);
    const Tensor e = Tensor::full({1}, 1, x.device());
    return with_math([&](auto math) { return fake_quantize_padded<0>(op(), x, padding, math, {}, {e}); });
  }

 private:
  static Slope parse_slope(const std::string& name) {
    return name == "none" ? Slope::none : (name == "STE" ? Slope::box : Slope::triangle);
  }

  void require_one_bit() const {
    const std::int64_t count = levels();
    check::value(count == 2 || count > std::int64_t{1} << (float_bits - 1), op(), "xnor has one bit",
                 bits() == 1 ? std::to_string(count) + " levels" : std::to_string(bits()),
                 "1 bit (or 32: not quantized)");
  }

  // Memory has the channels of a position side by side.
  Grouping grouping_of_scale(const Tensor& x, const Grouping& groups) const {
    if (scale_ == "group") return groups;
    const std::int64_t channels = x.rank() > 1 ? x.dim(1) : 1;
    if (scale_ == "channel") return {.outer = x.numel() / channels};
    return {.outer = x.dim(0), .inner = channels, .run = 1};
  }

  Tensor run(const Tensor& x, const Grouping& grouping, const Tensor& e) const {
    return with_math([&](auto math) { return fake_quantize<0>(op(), x, math, {}, grouping, {e}); });
  }

  template <class Run>
  Tensor with_math(const Run& run) const {
    switch (slope_) {
      case Slope::none:
        return run(SignMath<Slope::none>());
      case Slope::box:
        return run(SignMath<Slope::box>());
      default:
        return run(SignMath<Slope::triangle>());
    }
  }

  Slope slope_;
  std::string scale_;
};

std::vector<OptionSpec> own_options(Role role) {
  const bool weight = role == Role::weight;
  std::vector<OptionSpec> all = {
      {.name = "grad",
       .type = OptionType::choice,
       .default_value = weight ? "none" : "STE",
       .help = weight ? "gradient: none: passed on; STE: only where |x| < 1"
                      : "gradient: none: passed on; STE: only where |x| < 1; triangle: times 2 - 2|x| there",
       .choices = weight ? std::vector<std::string>{"none", "STE"}
                         : std::vector<std::string>{"none", "STE", "triangle"}}};
  if (!weight)
    all.push_back({.name = "scale",
                   .type = OptionType::choice,
                   .default_value = "none",
                   .help = "multiply by mean |x|: channel: of each position; resolution: of each channel",
                   .choices = {"none", "channel", "resolution"}});
  std::vector<std::string> without = {"half_range", "correlate"};
  if (!weight) without.push_back("groups");
  return with_rule_options(std::move(all), role, without);
}

const Registration registration{{
    .name = "xnor",
    .summary = "one bit: signs, of weights times their mean magnitude",
    .source =
        "Rastegari, Ordonez, Redmon, Farhadi 2016, arXiv:1603.05279; github aim-uofa/model-quantization",
    .weight_options = own_options(Role::weight),
    .activation_options = own_options(Role::activation),
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<Xnor>(spec);
    },
    // The first and the last layer stay float.
    .first_layer = {.quantize_input = false, .least_weight_bits = float_bits},
    .last_layer = {.quantize_input = false, .least_weight_bits = float_bits},
}};

}  // namespace
}  // namespace qtrain::quant
