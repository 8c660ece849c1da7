// fixed-point: a uniform grid with a fixed step (the static quantizer of Uhlich et al. 2020, "Mixed Precision
// DNNs", arXiv:1905.11452; github sony/ai-research-code, sony/nnabla).
//
//   max = (2^(n - sign) - 1) delta,   min = -max, or 0 without sign
//   y = sgn(x) floor(|x| / delta + 1/2) delta within [min, max]
//   dL/dx = g [min <= x <= max];      g with fine_grained=false
//
// delta is as given, or is found from the first weights and kept (grid_quantizer.h).
#include "quant/fake_quantize.h"
#include "quant/quantizers/grid_quantizer.h"

namespace qtrain::quant {
namespace {

struct FixedPointMath {
  std::array<const float*, 1> constants{};
  float steps = 1;
  bool sign = true;
  bool fine_grained = true;
  float low = 0, high = 1, delta = 1;
  Divisor by_delta;

  QTRAIN_HOST_DEVICE void prepare() {
    delta = *constants[0];
    by_delta.set(delta);
    high = steps * delta;
    low = sign ? -high : 0.0F;
  }
  QTRAIN_HOST_DEVICE float forward(float x) const {
    const float c = clip(x, low, high);  // the divisor takes no infinite values
    const float y = floorf(by_delta.divide(fabsf(c)) + 0.5F) * delta;
    const float saturated = y > high ? high : y;
    return c < 0 ? -saturated : saturated;
  }
  QTRAIN_HOST_DEVICE float backward(float x, float g) const {
    return !fine_grained || (x >= low && x <= high) ? g : 0.0F;
  }
};

std::vector<OptionSpec> options_of(Role role) {
  return {sign_option(role), step_option(role, "delta", "the step"),
          flag_option("fine_grained", true, "no gradient outside the range; off: gradient g everywhere")};
}

class FixedPoint final : public GridQuantizer {
 public:
  explicit FixedPoint(const QuantizerSpec& spec)
      : GridQuantizer(op_of(spec.role), spec, start(spec), range(spec)),
        sign_(spec.options.flag("sign")),
        fine_grained_(spec.options.flag("fine_grained")) {
    add_fixed("delta", Quantity::step);
  }

 protected:
  Tensor quantize(const Tensor& x, const std::vector<Tensor>& numbers) override {
    FixedPointMath math;
    math.steps = power_of_two(static_cast<float>(bits() - (sign_ ? 1 : 0))) - 1;
    math.sign = sign_;
    math.fine_grained = fine_grained_;
    return fake_quantize<0>(op(), x, math, {}, {}, {numbers[0]});
  }

 private:
  static std::string_view op_of(Role role) {
    return op_of_role(role, "fixed-point weight", "fixed-point activation", "fixed-point bias");
  }
  static GridStart start(const QuantizerSpec& spec) {
    GridStart start = grid_start(spec, false);
    start.given_step = first_step(op_of(spec.role), spec, "delta");
    return start;
  }
  static BitRange range(const QuantizerSpec& spec) {
    return {.least = spec.options.flag("sign") ? 2 : 1,
            .why_not_fewer = "a sign alone leaves no bit for the magnitude",
            .most = float_bits,
            .why_not_more = ""};
  }

  bool sign_;
  bool fine_grained_;
};

const Registration registration{
    grid_info("fixed-point", "uniform levels with a fixed step, a power of two found from the first weights",
              "Uhlich et al. 2020, arXiv:1905.11452; github sony/ai-research-code and sony/nnabla",
              options_of, [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
                return std::make_shared<FixedPoint>(spec);
              })};

}  // namespace
}  // namespace qtrain::quant
