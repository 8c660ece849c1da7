// afp: adaptive floating point (Liu et al. 2021, "Improving Neural Network Efficiency via Post-Training
// Quantization with Adaptive Floating-Point", ICCV; code MXHX7199/ICCV_2021_AFP). Weights only.
//
// b bits are a sign, e exponent bits and s mantissa bits: s = 0, 1, 2 for b = 3, 4, more; e = b - 1 - s.
//   A = max|w|                              r_j = 1 + j / 2^s, the largest of them r_max = 2 - 2^-s
//   upper = ceil(log2(A / r_max))           the least exponent with r_max 2^upper >= A
//   lower = upper + 1 - 2^e
//   levels: 2^k r_j for lower <= k <= upper, with 0 in the place of the smallest of them
//   y = sign(w) * (the level nearest to |w|)
// Ties go to the smaller of two positive levels, but to the smallest positive one rather than to 0.
// Backward: dL/dw = g. That is ours: the reference overwrites the weights once after training.
//
// Above the smallest positive level p, the levels are the floats with s mantissa bits, so rounding to the
// nearest level is rounding the mantissa, in integers: adding half a unit less one and cutting off rounds
// ties down and carries into the exponent where it should. Below p remains the choice between p and 0.
//
// All-zero weights stay as they are. A NaN or an infinity among the weights makes the whole result NaN.
// Levels beyond float32's range count as its largest level.
#include "quant/quantizers/afp.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr int float_mantissa = 23;
constexpr int float_bias = 127;
constexpr std::uint32_t float_infinity = 0x7f800000;

struct Format {
  int exponent = 0;  // bits
  int mantissa = 0;
};

Format format_of(int bits) {
  if (bits < afp_least_bits)
    throw ValueError(
        {.where = "afp",
         .what = "too few bits",
         .got = std::to_string(bits),
         .expected = fmt::format("{} to {}, or 32", afp_least_bits, afp_most_bits),
         .hint = "a sign and two exponent bits are the least; with one there would be -1, 0 and 1"});
  if (bits > afp_most_bits)
    throw ValueError({.where = "afp",
                      .what = "too many bits",
                      .got = std::to_string(bits),
                      .expected = fmt::format("{} to {}, or 32", afp_least_bits, afp_most_bits),
                      .hint = "more bits only add levels below 2^-31 of the largest weight"});
  const int mantissa = std::min(bits - 3, 2);
  return {.exponent = bits - 1 - mantissa, .mantissa = mantissa};
}

// The exponent `upper` for a normal float.
QTRAIN_HOST_DEVICE int upper_exponent(float largest, int mantissa) {
  const auto pattern = std::bit_cast<std::int32_t>(largest);
  const std::int32_t fraction = pattern & ((1 << float_mantissa) - 1);
  const std::int32_t of_r_max = (1 << float_mantissa) - (1 << (float_mantissa - mantissa));
  return (pattern >> float_mantissa) - float_bias + (fraction > of_r_max ? 1 : 0);
}

// Weights this small are multiplied by `lift` first, so that no level of theirs is a denormal number.
constexpr float least_unlifted = 0x1p-90F;
constexpr float lift = 0x1p100F;

struct AfpMath {
  static constexpr bool straight_through = true;
  std::array<const float*, 1> constants{};  // A
  int exponents = 4;                        // 2^e
  int mantissa = 0;
  std::uint32_t cut = 1U << float_mantissa;  // the mantissa's unit among a float's bits
  float up = 1;
  float down = 1;
  float least = 1;  // the smallest positive level

  AfpMath() = default;
  explicit AfpMath(Format format)
      : exponents(1 << format.exponent),
        mantissa(format.mantissa),
        cut(1U << (float_mantissa - format.mantissa)) {}

  QTRAIN_HOST_DEVICE void prepare() {
    const float largest = *constants[0];
    const bool is_small = largest < least_unlifted;
    up = is_small ? lift : 1.0F;
    down = is_small ? 1.0F / lift : 1.0F;
    if (!(largest <= std::numeric_limits<float>::max())) down = std::numeric_limits<float>::quiet_NaN();
    if (!(largest > 0) || !(largest <= std::numeric_limits<float>::max())) return;
    const int lower = upper_exponent(largest * up, mantissa) + 1 - exponents;
    // 2^lower r_1, which is 2^(lower+1) where there is only r_0.
    least = std::bit_cast<float>((static_cast<std::uint32_t>(lower + float_bias) << float_mantissa) + cut);
  }

  QTRAIN_HOST_DEVICE float forward(float x) const {
    const float a = fabsf(x) * up;
    const std::uint32_t rounded = (std::bit_cast<std::uint32_t>(a) + cut / 2 - 1) & ~(cut - 1);
    const std::uint32_t most = float_infinity - cut;
    const float level = std::bit_cast<float>(rounded < most ? rounded : most);
    const float at_least = level < least ? least : level;
    const float nearest = a < 0.5F * least ? 0.0F : at_least;
    return copysignf(nearest, x) * down;
  }
};

class AfpWeight final : public Quantizer {
 public:
  explicit AfpWeight(const QuantizerSpec& spec) : Quantizer(spec.bits) { set_bits(spec.bits); }

  std::string kind() const override { return "AfpWeight"; }
  std::string describe() const override { return "afp weight, " + std::to_string(bits()) + " bits"; }

  void set_bits(int bits) override {
    if (bits >= 1 && bits < float_bits) format_of(bits);
    Quantizer::set_bits(bits);
  }

  Tensor forward(const Tensor& w) override {
    if (bits() >= float_bits) return w;
    check::tensor("afp weight", "w", w);
    const Tensor largest = Tensor::empty({1}, DType::f32, w.device());
    reduce<1, Maximum>(backend(w.device()).stream(), w.numel(), Magnitude{}, largest.data<float>(),
                       w.data<float>());
    return fake_quantize<0>("afp weight", w, AfpMath(format_of(bits())), {}, {}, {largest});
  }
};

const Registration registration{{
    .name = "afp",
    .summary = "adaptive floating point: levels with few exponent and mantissa bits below the largest weight",
    .source = "Liu et al. 2021, ICCV; github MXHX7199/ICCV_2021_AFP",
    .weight_options = {},
    .activation_options = {},
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<AfpWeight>(spec);
    },
    .roles = {Role::weight},
}};

}  // namespace

std::vector<float> afp_levels(int bits, float largest) {
  const Format format = format_of(bits);
  if (!(largest > 0) || !std::isfinite(largest))
    throw ValueError({.where = "afp",
                      .what = "no levels for this largest magnitude",
                      .got = fmt::format("{}", largest),
                      .expected = "a positive finite number",
                      .hint = ""});
  // A denormal number has no hidden bit; times 2^100 it has.
  const int shift = largest < least_unlifted ? 100 : 0;
  const int upper = upper_exponent(std::ldexp(largest, shift), format.mantissa) - shift;
  const int lower = upper + 1 - (1 << format.exponent);
  const int ratios = 1 << format.mantissa;
  std::vector<float> levels;
  for (int k = lower; k <= upper; ++k)
    for (int j = 0; j < ratios; ++j)
      levels.push_back(std::ldexp(1.0F + static_cast<float>(j) / static_cast<float>(ratios), k));
  levels.erase(levels.begin());
  levels.push_back(0);
  return levels;
}

float nearest_level(std::span<const float> levels, float w) {
  const float a = std::abs(w);
  if (levels.empty() || std::isnan(w)) return w;
  const auto above = std::ranges::lower_bound(levels, a);  // the first level that is not smaller
  if (above == levels.begin()) return std::copysign(a < levels[0] / 2 ? 0.0F : levels[0], w);
  if (above == levels.end()) return std::copysign(levels.back(), w);
  const float below = *(above - 1);
  return std::copysign(a - below <= *above - a ? below : *above, w);
}

}  // namespace qtrain::quant
