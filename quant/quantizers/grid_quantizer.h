// What fixed-point, pow2, mixed-uniform and mixed-pow2 share (Uhlich et al. 2020; Sony's reference code): the
// options of their grids and where their numbers start. With b bits, sign = 0 or 1, n = b - sign:
//
//   delta = 2^ceil(log2((max|w| + eps) / (2^n - 1))) if b > 4, else 2^floor(...)    weights and biases
//   delta = 2^-3                                                                    activations, or as given
//   xmax  = delta (2^n - 1), of powers of two P(that)
//   xmin  = xmax 2^(1 - K), K = 2^(n - zero)
//   m     = log2(xmax)
//   each learned number within [min + 1e-5, max - 1e-5]
//
// A learned number outside its bounds has no gradient, so every update is followed by a projection, from the
// values before it:
//
//   (d, xmax) or (xmin, xmax):  low = min(low, xmax - 1e-5), xmax = max(low + 1e-5, xmax)
//   then each learned number into [min + 1e-5, max - 1e-5]
//
// and with limit_grad the gradients of such a pair are clipped to [-low, low] before the update.
//
// w are the weights of the first training forward; a bias starts from the weights beside it. A number that
// isn't known yet is NaN, so whatever loads values before that forward is obeyed. In evaluation nothing
// changes: numbers that aren't known then serve for that forward alone.
#pragma once

#include <vector>

#include "quant/quantizers/power_of_two.h"
#include "quant/registry.h"

namespace qtrain::quant {

enum class Quantity { step, largest, smallest, bits, exponent };

// The grid that the first numbers describe.
struct GridStart {
  float bits = 4;
  float sign = 1;
  float zero = 0;            // 1: of powers of two, one code is 0
  bool powers = false;       // levels are powers of two
  float given_step = 0;      // 0: from the weights
  float given_exponent = 0;  // of the largest level, where has_exponent
  bool has_exponent = false;
  Bounds step{smallest_power, 0x1p90F};  // so that the largest level is finite too

  QTRAIN_HOST_DEVICE float delta(float largest_weight, float steps) const {
    const float q = (largest_weight + 0x1p-23F) / steps;
    const float below = power_below(q);
    const float found = bits > 4 && q > below ? 2 * below : below;
    return clip(given_step > 0 ? given_step : found, step.low, step.high);
  }
  // NaN where the weights have one.
  QTRAIN_HOST_DEVICE float value(Quantity quantity, float largest_weight) const {
    const float n = bits - sign < 1 ? 1.0F : bits - sign;
    const float steps = power_of_two(n) - 1;
    const float d = delta(largest_weight, steps);
    float xmax = powers ? nearest_power(d * steps) : d * steps;
    if (has_exponent) xmax = power_of_two(given_exponent);
    const float codes = bits - sign - zero < 0 ? 1.0F : power_of_two(bits - sign - zero);
    switch (quantity) {
      case Quantity::step:
        return d;
      case Quantity::largest:
        return xmax;
      case Quantity::smallest:
        return xmax * power_of_two(1 - codes);
      case Quantity::bits:
        return bits;
      case Quantity::exponent:
        break;
    }
    return powers ? exponent_of(xmax) : log2f(xmax);
  }
};

// The bit-widths that a grid can have, and why not fewer or more.
struct BitRange {
  int least = 1;
  std::string why_not_fewer;
  int most = float_bits;
  std::string why_not_more;
};

class GridQuantizer : public Quantizer {
 public:
  Tensor forward(const Tensor& x) final;
  void set_bits(int bits) final;  // starts anew
  void follow_weight(const Tensor& weight) final;
  void before_update() final;
  void after_update() final;
  bool pads_first() const override { return start_.powers && start_.zero == 0; }  // 0 is no level
  std::string kind() const override { return kind_from(op_); }
  std::string describe() const override;

 protected:
  // `op` names the quantizer in messages, "pow2 weight", and is kept: a literal. ValueError for spec.bits
  // outside the range.
  GridQuantizer(std::string_view op, const QuantizerSpec& spec, const GridStart& start, BitRange range);

  // x with the numbers in the order in which they were added.
  virtual Tensor quantize(const Tensor& x, const std::vector<Tensor>& numbers) = 0;
  // The same of x with zeros around its images.
  virtual Tensor quantize_padded(const Tensor& x, const Border& padding, const std::vector<Tensor>& numbers);

  // A learned number, or one that stays as it starts.
  void add_learned(std::string name, Quantity quantity, const Bounds& bounds);
  void add_fixed(std::string name, Quantity quantity);
  // The two learned numbers are the low and the high end of one range.
  void pair_learned(bool limit_gradients);

  std::string_view op() const { return op_; }

 private:
  struct Number {
    const Tensor* tensor;
    Quantity quantity;
    Bounds bounds;
    bool learned;
  };
  Tensor forward_padded(const Tensor& x, const Border& padding) final;
  void check_bits(int bits) const;
  bool depends_on_weights(Quantity quantity) const;
  Tensor first_value(Quantity quantity, const Bounds& bounds) const;
  std::vector<Tensor> numbers_for(const Tensor& x);
  bool started() const;

  std::string_view op_;
  GridStart start_;
  BitRange range_;
  std::vector<Number> numbers_;
  bool paired_ = false;
  bool limit_gradients_ = false;
  const Tensor& initialized_;  // 1 from the first training forward on
  Tensor weight_;              // beside a bias, until it has started
};

// --- for the quantizers' options
// ------------------------------------------------------------------------------------------------------------

// What the four register: all roles but outputs, the first layer's input left alone.
QuantizerInfo grid_info(std::string name, std::string summary, std::string source,
                        std::vector<OptionSpec> (*options_of)(Role),
                        std::shared_ptr<Quantizer> (*make)(const QuantizerSpec&));
std::string_view op_of_role(Role role, std::string_view weight, std::string_view activation,
                            std::string_view bias);
GridStart grid_start(const QuantizerSpec& spec, bool powers);
OptionSpec real_option(std::string name, std::string default_value, std::string help);
OptionSpec flag_option(std::string name, bool default_value, std::string help);
OptionSpec sign_option(Role role);
OptionSpec zero_option(Role role);
OptionSpec limit_grad_option(const std::string& pair);  // for pair_learned(), of this parametrization
OptionSpec step_option(Role role, std::string name, std::string help);
// Reads a step_option(). ValueError unless it is 0 where it may be, or within 2^-60 and 2^60.
float first_step(std::string_view op, const QuantizerSpec& spec, const std::string& name);
// Options `name`_min and `name`_max.
void add_bounds_options(std::vector<OptionSpec>& all, const std::string& name, const std::string& least,
                        const std::string& most);
// Reads them. ValueError, with the reason in `why`, unless least <= name_min < name_max <= most, more than
// 2e-5 apart.
Bounds bounds_from(std::string_view op, const Options& options, const std::string& name, double least,
                   double most, const std::string& why = "");
// The whole bit-widths within the bounds of b.
BitRange width_range(const Bounds& b);

}  // namespace qtrain::quant
