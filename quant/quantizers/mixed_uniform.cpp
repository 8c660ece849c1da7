// mixed-uniform: a uniform grid whose step, range or bit-width is learned (Uhlich, Mauch, Cardinaux,
// Yoshiyama, Alonso Garcia, Tiedemann, Kemp, Nakamura 2020, "Mixed Precision DNNs: All you need is a good
// parametrization", arXiv:1905.11452; github sony/ai-research-code, mixed-precision-dnns).
//
// Two of step d, range xmax and bit-width b are learned; P(v) = 2^round(log2 v); N = round(b) - sign, S = 2^N
// - 1:
//   d_xmax    d = P(d),            X = xmax
//   b_xmax    d = P(X / S),        X = xmax
//   d_b       d = P(d),            X = d S
//   b_range   d = P(2^m / S),      X = d S
//   c = clip(x, -X or 0, X),  k = round(c / d),  y = d k
// X need not be a multiple of d: then y may lie beyond X. `round` is half away from zero, and its derivative
// counts as 1. Backward: dL/dx = g strictly inside the range, else 0; with
//   D = sum g (k - c/d),   E = sum g ([x >= X] - sign [x <= -X])
// every learned number has the gradient (a D + e E) with the two factors that prepare() computes.
#include "quant/fake_quantize.h"
#include "quant/quantizers/grid_quantizer.h"

namespace qtrain::quant {
namespace {

enum class Form { d_xmax, b_xmax, d_b, b_range };

struct MixedUniformMath {
  std::array<const float*, 2> parameters{};  // in the order of the form's name; of b_range, b and m
  Form form = Form::d_xmax;
  float sign = 1;
  std::array<Bounds, 2> bounds{};
  float low = 0, high = 1, step = 1, per_step = 1;
  float a0 = 0, a1 = 0, e0 = 0, e1 = 0;  // of the first and the second learned number

  QTRAIN_HOST_DEVICE void prepare() {
    const Bounded p0 = bounds[0].apply(*parameters[0]);
    const Bounded p1 = bounds[1].apply(*parameters[1]);
    const float b = form == Form::d_b ? p1.value : p0.value;
    const float codes = power_of_two(round_half_away(b) - sign);  // 2^N; without meaning for d_xmax
    const float s = codes - 1;
    switch (form) {
      case Form::d_xmax:
        step = nearest_power(p0.value);
        high = p1.value;
        a0 = step / p0.value;
        e1 = 1;
        break;
      case Form::b_xmax:
        high = p1.value;
        step = nearest_power(high / s);
        a0 = -step * codes * ln_2 / s;
        a1 = step / high;
        e1 = 1;
        break;
      case Form::d_b:
        step = nearest_power(p0.value);
        high = step * s;
        a0 = step / p0.value;
        e0 = s * a0;
        e1 = step * codes * ln_2;
        break;
      case Form::b_range:
        step = nearest_power(exp2f(p1.value) / s);
        high = step * s;
        a0 = -step * codes * ln_2 / s;
        a1 = step * ln_2;
        e1 = s * a1;  // and e0 = 0: the range follows m, whatever b is
        break;
    }
    a0 *= p0.alive;
    e0 *= p0.alive;
    a1 *= p1.alive;
    e1 *= p1.alive;
    low = sign > 0 ? -high : 0.0F;
    per_step = 1.0F / step;  // exact: a power of two
  }

  QTRAIN_HOST_DEVICE float forward(float x) const {
    return step * round_half_away(clip(x, low, high) * per_step);
  }
  QTRAIN_HOST_DEVICE Mapped<2> backward(float x, float g) const {
    const float c = clip(x, low, high) * per_step;
    const float d = g * (round_half_away(c) - c);
    const float e = g * ((x >= high ? 1.0F : 0.0F) - (x <= low ? sign : 0.0F));
    return {x > low && x < high ? g : 0.0F, {a0 * d + e0 * e, a1 * d + e1 * e}};
  }
};

std::vector<OptionSpec> options_of(Role role) {
  const bool activation = role == Role::activation;
  std::vector<OptionSpec> all = {{.name = "parametrization",
                                  .type = OptionType::choice,
                                  .default_value = "d_xmax",
                                  .help = "what is learned: step and range, width and range, step and width, "
                                          "width and exponent",
                                  .choices = {"d_xmax", "b_xmax", "d_b", "b_range"}},
                                 sign_option(role),
                                 step_option(role, "d_init", "the first step")};
  add_bounds_options(all, "d", "0.00390625", "1");
  add_bounds_options(all, "xmax", "0.00390625", activation ? "255" : "127");
  add_bounds_options(all, "b", activation ? "1" : "2", "8");
  add_bounds_options(all, "m", "-8", "8");
  all.push_back(limit_grad_option("d_xmax"));
  return all;
}

class MixedUniform final : public GridQuantizer {
 public:
  explicit MixedUniform(const QuantizerSpec& spec)
      : GridQuantizer(op_of(spec.role), spec, start(spec), range(spec)) {
    math_.form = form_of(spec);
    math_.sign = spec.options.flag("sign") ? 1.0F : 0.0F;
    const auto learn = [&](std::size_t i, const char* name, Quantity quantity) {
      math_.bounds[i] = bounds_of(spec, name);
      add_learned(name, quantity, math_.bounds[i]);
    };
    const bool has_b = math_.form != Form::d_xmax;
    if (math_.form == Form::d_xmax || math_.form == Form::d_b) learn(0, "d", Quantity::step);
    if (has_b) learn(math_.form == Form::d_b ? 1 : 0, "b", Quantity::bits);
    if (math_.form == Form::d_xmax || math_.form == Form::b_xmax) learn(1, "xmax", Quantity::largest);
    if (math_.form == Form::b_range) learn(1, "m", Quantity::exponent);
    if (math_.form == Form::d_xmax) pair_learned(spec.options.flag("limit_grad"));
  }

 protected:
  Tensor quantize(const Tensor& x, const std::vector<Tensor>& numbers) override {
    return fake_quantize<2>(op(), x, math_, {numbers[0], numbers[1]});
  }

 private:
  static std::string_view op_of(Role role) {
    return op_of_role(role, "mixed-uniform weight", "mixed-uniform activation", "mixed-uniform bias");
  }
  static Form form_of(const QuantizerSpec& spec) {
    const std::string& name = spec.options.choice("parametrization");
    return name == "d_xmax" ? Form::d_xmax
                            : (name == "b_xmax" ? Form::b_xmax : (name == "d_b" ? Form::d_b : Form::b_range));
  }
  static Bounds bounds_of(const QuantizerSpec& spec, const std::string& name) {
    const std::string_view op = op_of(spec.role);
    if (name == "b")
      return bounds_from(op, spec.options, name, spec.options.flag("sign") ? 2 : 1, 31,
                         spec.options.flag("sign") ? "a sign alone leaves no bit for the magnitude" : "");
    if (name == "m") return bounds_from(op, spec.options, name, -60, 60);
    return bounds_from(op, spec.options, name, 0x1p-60, 0x1p60);
  }
  static GridStart start(const QuantizerSpec& spec) {
    GridStart start = grid_start(spec, false);
    start.given_step = first_step(op_of(spec.role), spec, "d_init");
    const Form form = form_of(spec);
    // The first xmax goes with the step that there is.
    if (form == Form::d_xmax || form == Form::d_b) start.step = bounds_of(spec, "d");
    return start;
  }
  static BitRange range(const QuantizerSpec& spec) {
    if (form_of(spec) != Form::d_xmax) return width_range(bounds_of(spec, "b"));
    return {.least = spec.options.flag("sign") ? 2 : 1,
            .why_not_fewer = "a sign alone leaves no bit for the magnitude",
            .most = float_bits,
            .why_not_more = ""};
  }

  MixedUniformMath math_;
};

const Registration registration{
    grid_info("mixed-uniform", "uniform levels with two of step, range and bit-width learned",
              "Uhlich et al. 2020, arXiv:1905.11452; github sony/ai-research-code", options_of,
              [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
                return std::make_shared<MixedUniform>(spec);
              })};

}  // namespace
}  // namespace qtrain::quant
