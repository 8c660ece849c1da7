// pow2: levels are powers of two in a fixed range (the static quantizer of Uhlich et al. 2020, "Mixed
// Precision DNNs", arXiv:1905.11452; github sony/ai-research-code, sony/nnabla).
//
//   k = n - sign - zero,   pmax = 2^m,   pmin = 2^(m - (2^k - 1)),   q = P(|x|) = 2^round(log2 |x|)
//   y = sgn(x) {pmax where q > pmax; pmin where q < pmin, or with zero 0 where |x| < pmin / sqrt(2); else q}
//   without sign, negative x count as 0;   x = 0 gives +pmin without zero
//   dL/dx = g [q <= pmax], without sign also [x >= 0];   g with fine_grained=false
//
// m is as given, or is found from the first weights and kept (grid_quantizer.h).
#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/quantizers/grid_quantizer.h"

namespace qtrain::quant {
namespace {

constexpr int automatic_exponent = 128;  // no float has it
constexpr int largest_exponent = 60;

struct Pow2Math {
  std::array<const float*, 1> constants{};
  float range = 1;  // 2^k - 1
  bool sign = true;
  bool zero = false;
  bool fine_grained = true;
  float low = 0, high = 1, prune = 0;

  QTRAIN_HOST_DEVICE void prepare() {
    const float m = *constants[0];
    high = power_of_two(m);
    low = clip(power_of_two(m - range), smallest_power, high);
    prune = zero ? low * sqrt_half : 0.0F;
  }
  QTRAIN_HOST_DEVICE float forward(float x) const {
    const float u = !sign && x < 0 ? 0.0F : x;
    const float a = fabsf(u);
    const float level = clip(nearest_power(a), low, high);
    const float y = a < prune ? 0.0F : level;
    return u < 0 ? -y : y;
  }
  QTRAIN_HOST_DEVICE float backward(float x, float g) const {
    const bool passes = nearest_power(fabsf(x)) <= high && (sign || x >= 0);
    return !fine_grained || passes ? g : 0.0F;
  }
};

std::vector<OptionSpec> options_of(Role role) {
  return {sign_option(role),
          zero_option(role),
          {.name = "m",
           .type = OptionType::integer,
           .default_value = std::to_string(automatic_exponent),
           .help = role == Role::activation ? "the largest level is 2^m; 128: that of a grid with step 1/8"
                                            : "the largest level is 2^m; 128: from the first weights",
           .choices = {}},
          flag_option("fine_grained", true, "no gradient above the range; off: gradient g everywhere")};
}

class Pow2 final : public GridQuantizer {
 public:
  explicit Pow2(const QuantizerSpec& spec)
      : GridQuantizer(op_of(spec.role), spec, start(spec), range(spec)),
        sign_(spec.options.flag("sign")),
        zero_(spec.options.flag("with_zero")),
        fine_grained_(spec.options.flag("fine_grained")) {
    add_fixed("m", Quantity::exponent);
  }

 protected:
  Tensor quantize(const Tensor& x, const std::vector<Tensor>& numbers) override {
    return fake_quantize<0>(op(), x, math(), {}, {}, {numbers[0]});
  }
  Tensor quantize_padded(const Tensor& x, const Border& padding,
                         const std::vector<Tensor>& numbers) override {
    return fake_quantize_padded<0>(op(), x, padding, math(), {}, {numbers[0]});
  }

 private:
  Pow2Math math() const {
    Pow2Math math;
    math.range = power_of_two(static_cast<float>(bits() - (sign_ ? 1 : 0) - (zero_ ? 1 : 0))) - 1;
    math.sign = sign_;
    math.zero = zero_;
    math.fine_grained = fine_grained_;
    return math;
  }
  static std::string_view op_of(Role role) {
    return op_of_role(role, "pow2 weight", "pow2 activation", "pow2 bias");
  }
  static GridStart start(const QuantizerSpec& spec) {
    GridStart start = grid_start(spec, true);
    const std::int64_t m = spec.options.integer("m");
    if (m == automatic_exponent) {
      start.given_step = spec.role == Role::activation ? 0.125F : 0.0F;
      return start;
    }
    if (m < -largest_exponent || m > largest_exponent)
      throw ValueError({.where = std::string(op_of(spec.role)),
                        .what = "option 'm'",
                        .got = std::to_string(m),
                        .expected = "-60..60, or 128",
                        .hint = ""});
    start.has_exponent = true;
    start.given_exponent = static_cast<float>(m);
    return start;
  }
  static BitRange range(const QuantizerSpec& spec) {
    return {.least = 1 + (spec.options.flag("sign") ? 1 : 0) + (spec.options.flag("with_zero") ? 1 : 0),
            .why_not_fewer = "beside the sign and the zero, at least one bit must remain for the magnitude",
            .most = float_bits,
            .why_not_more = ""};
  }

  bool sign_;
  bool zero_;
  bool fine_grained_;
};

const Registration registration{grid_info(
    "pow2", "powers of two in a fixed range, found from the first weights",
    "Uhlich et al. 2020, arXiv:1905.11452; github sony/ai-research-code and sony/nnabla", options_of,
    [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> { return std::make_shared<Pow2>(spec); })};

}  // namespace
}  // namespace qtrain::quant
