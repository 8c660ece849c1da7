// mixed-pow2: powers of two as levels, with a learned range or bit-width (Uhlich, Mauch, Cardinaux,
// Yoshiyama, Alonso Garcia, Tiedemann, Kemp, Nakamura 2020, "Mixed Precision DNNs: All you need is a good
// parametrization", arXiv:1905.11452; github sony/ai-research-code, mixed-precision-dnns).
//
// Two of the smallest level xmin, the largest xmax and the bit-width b are learned; P(v) = 2^round(log2 v);
// K = 2^(round(b) - sign - zero):
//   xmin_xmax   lo = P(xmin),          hi = P(xmax)
//   b_xmax      lo = hi 2^(1 - K),     hi = P(xmax)
//   b_xmin      lo = P(xmin),          hi = lo 2^(K - 1)
//   b_range     lo = hi 2^(1 - K),     hi = 2^round(m)
//   u = x, or max(x, 0) without sign;  a = |u|;  s = sgn(u) with sgn(0) = 1
//   I1 = [a < lo], with zero [lo / sqrt(2) <= a < lo];   I2 = [lo <= a < hi];   I3 = [a >= hi]
//   y = s (lo I1 + P(a) I2 + hi I3)
// `round` is half away from zero, and its derivative counts as 1. Backward: dL/dx = g I2 P(a) / a; with
//   L = sum g s I1,   H = sum g s I3
// every learned number has the gradient (l L + h H) with the two factors that prepare() computes.
#include "quant/fake_quantize.h"
#include "quant/quantizers/grid_quantizer.h"

namespace qtrain::quant {
namespace {

enum class Form { xmin_xmax, b_xmax, b_xmin, b_range };

struct MixedPow2Math {
  std::array<const float*, 2> parameters{};  // in the order of the form's name; of b_range, b and m
  Form form = Form::xmin_xmax;
  bool sign = true;
  bool zero = false;
  std::array<Bounds, 2> bounds{};
  float low = 0, high = 1, prune = 0;
  float l0 = 0, l1 = 0, h0 = 0, h1 = 0;  // of the first and the second learned number

  QTRAIN_HOST_DEVICE void prepare() {
    const Bounded p0 = bounds[0].apply(*parameters[0]);
    const Bounded p1 = bounds[1].apply(*parameters[1]);
    // At least one code, where b can fall below sign and zero.
    const float magnitude_bits = round_half_away(p0.value) - (sign ? 1.0F : 0.0F) - (zero ? 1.0F : 0.0F);
    const float codes = power_of_two(magnitude_bits < 0 ? 0.0F : magnitude_bits);
    switch (form) {
      case Form::xmin_xmax:
        low = nearest_power(p0.value);
        high = nearest_power(p1.value);
        l0 = low / p0.value;
        h1 = high / p1.value;
        break;
      case Form::b_xmax:
        high = nearest_power(p1.value);
        low = clip(high * power_of_two(1 - codes), smallest_power, high);
        l1 = within(low) * (low / p1.value);
        h1 = high / p1.value;
        l0 = -within(low) * low * codes * (ln_2 * ln_2);
        break;
      case Form::b_xmin:
        low = nearest_power(p1.value);
        high = clip(low * power_of_two(codes - 1), low, largest_power);
        l1 = low / p1.value;
        h1 = within(high) * (high / p1.value);
        h0 = within(high) * high * codes * (ln_2 * ln_2);
        break;
      case Form::b_range:
        high = power_of_two(round_half_away(p1.value));
        low = clip(high * power_of_two(1 - codes), smallest_power, high);
        l1 = within(low) * low * ln_2;
        h1 = high * ln_2;
        l0 = -within(low) * low * codes * (ln_2 * ln_2);
        break;
    }
    l0 *= p0.alive;
    h0 *= p0.alive;
    l1 *= p1.alive;
    h1 *= p1.alive;
    prune = zero ? low * sqrt_half : 0.0F;
  }

  // 0 for a level that was kept from overflow: it depends on nothing.
  QTRAIN_HOST_DEVICE static float within(float level) {
    return level > smallest_power && level < largest_power ? 1.0F : 0.0F;
  }
  QTRAIN_HOST_DEVICE float unsigned_or_not(float x) const { return !sign && x < 0 ? 0.0F : x; }
  QTRAIN_HOST_DEVICE bool is_low(float a) const { return a < low && a >= prune; }
  QTRAIN_HOST_DEVICE bool is_between(float a) const { return a >= low && a < high; }

  QTRAIN_HOST_DEVICE float forward(float x) const {
    const float u = unsigned_or_not(x);
    const float a = fabsf(u);
    // A sum: where xmin has come to lie above xmax, values between them get both.
    const float y =
        (is_low(a) ? low : 0.0F) + (a >= high ? high : 0.0F) + (is_between(a) ? nearest_power(a) : 0.0F);
    const float or_nan = a == a ? y : a;
    return u < 0 ? -or_nan : or_nan;
  }
  QTRAIN_HOST_DEVICE Mapped<2> backward(float x, float g) const {
    const float u = unsigned_or_not(x);
    const float a = fabsf(u);
    const float gs = u < 0 ? -g : g;
    const float in_low = is_low(a) ? gs : 0.0F;
    const float in_high = a >= high ? gs : 0.0F;
    const bool between = is_between(a);  // never at 0
    const float slope = nearest_power(a) / (between ? a : 1.0F);
    return {between ? g * slope : 0.0F, {l0 * in_low + h0 * in_high, l1 * in_low + h1 * in_high}};
  }
};

std::vector<OptionSpec> options_of(Role role) {
  const bool activation = role == Role::activation;
  std::vector<OptionSpec> all = {{.name = "parametrization",
                                  .type = OptionType::choice,
                                  .default_value = "xmin_xmax",
                                  .help = "what is learned: smallest and largest level, width and largest, "
                                          "width and smallest, width and exponent",
                                  .choices = {"xmin_xmax", "b_xmax", "b_xmin", "b_range"}},
                                 sign_option(role),
                                 zero_option(role),
                                 step_option(role, "d_init", "the step of the grid whose range comes first")};
  add_bounds_options(all, "xmin", activation ? "6.103515625e-05" : "1.52587890625e-05",
                     activation ? "255" : "127");
  add_bounds_options(all, "xmax", "0.00390625", activation ? "255" : "127");
  add_bounds_options(all, "b", activation ? "1" : "2", "8");
  add_bounds_options(all, "m", "-8", "8");
  all.push_back(limit_grad_option("xmin_xmax"));
  return all;
}

class MixedPow2 final : public GridQuantizer {
 public:
  explicit MixedPow2(const QuantizerSpec& spec)
      : GridQuantizer(op_of(spec.role), spec, start(spec), range(spec)) {
    math_.form = form_of(spec);
    math_.sign = spec.options.flag("sign");
    math_.zero = spec.options.flag("with_zero");
    const auto learn = [&](std::size_t i, const char* name, Quantity quantity) {
      math_.bounds[i] = bounds_of(spec, name);
      add_learned(name, quantity, math_.bounds[i]);
    };
    if (math_.form != Form::xmin_xmax) learn(0, "b", Quantity::bits);
    if (math_.form == Form::xmin_xmax) learn(0, "xmin", Quantity::smallest);
    if (math_.form == Form::b_xmin) learn(1, "xmin", Quantity::smallest);
    if (math_.form == Form::xmin_xmax || math_.form == Form::b_xmax) learn(1, "xmax", Quantity::largest);
    if (math_.form == Form::b_range) learn(1, "m", Quantity::exponent);
    if (math_.form == Form::xmin_xmax) pair_learned(spec.options.flag("limit_grad"));
  }

 protected:
  Tensor quantize(const Tensor& x, const std::vector<Tensor>& numbers) override {
    return fake_quantize<2>(op(), x, math_, {numbers[0], numbers[1]});
  }
  Tensor quantize_padded(const Tensor& x, const Border& padding,
                         const std::vector<Tensor>& numbers) override {
    return fake_quantize_padded<2>(op(), x, padding, math_, {numbers[0], numbers[1]});
  }

 private:
  static std::string_view op_of(Role role) {
    return op_of_role(role, "mixed-pow2 weight", "mixed-pow2 activation", "mixed-pow2 bias");
  }
  static Form form_of(const QuantizerSpec& spec) {
    const std::string& name = spec.options.choice("parametrization");
    return name == "xmin_xmax"
               ? Form::xmin_xmax
               : (name == "b_xmax" ? Form::b_xmax : (name == "b_xmin" ? Form::b_xmin : Form::b_range));
  }
  static Bounds bounds_of(const QuantizerSpec& spec, const std::string& name) {
    const std::string_view op = op_of(spec.role);
    if (name == "b") return bounds_from(op, spec.options, name, 1, 31);
    if (name == "m") return bounds_from(op, spec.options, name, -60, 60);
    return bounds_from(op, spec.options, name, 0x1p-60, 0x1p60);
  }
  static GridStart start(const QuantizerSpec& spec) {
    GridStart start = grid_start(spec, true);
    start.given_step = first_step(op_of(spec.role), spec, "d_init");
    return start;
  }
  static BitRange range(const QuantizerSpec& spec) {
    const int fixed = (spec.options.flag("sign") ? 1 : 0) + (spec.options.flag("with_zero") ? 1 : 0);
    BitRange range{.least = std::max(1, fixed),
                   .why_not_fewer = "sign and zero take a bit each",
                   .most = float_bits,
                   .why_not_more = ""};
    if (form_of(spec) == Form::xmin_xmax) return range;
    const BitRange width = width_range(bounds_of(spec, "b"));
    range.most = width.most;
    range.why_not_more = width.why_not_more;
    return width.least > range.least ? width : range;
  }

  MixedPow2Math math_;
};

const Registration registration{
    grid_info("mixed-pow2", "powers of two with two of smallest level, largest level and bit-width learned",
              "Uhlich et al. 2020, arXiv:1905.11452; github sony/ai-research-code", options_of,
              [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
                return std::make_shared<MixedPow2>(spec);
              })};

}  // namespace
}  // namespace qtrain::quant
