#include "quant/quantizers/grid_quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/scalar_functors.h"
#include "engine/kernels/update.h"
#include "engine/ops/check.h"
#include "engine/ops/rearrange.h"

namespace qtrain::quant {
namespace {

constexpr float margin = 1e-5F;  // from the bounds, where gradients would stop

// The number itself, or its first value if it isn't known.
struct FirstValue {
  GridStart start;
  Quantity quantity;
  Bounds bounds;
  QTRAIN_HOST_DEVICE float operator()(float now, float largest_weight) const {
    const float first =
        clip(start.value(quantity, largest_weight), bounds.low + margin, bounds.high - margin);
    return now == now ? now : first;
  }
};

// NaN, a number that isn't known yet, stays.
struct IntoBounds {
  Bounds bounds;
  QTRAIN_HOST_DEVICE void operator()(float& p) const {
    p = clip(p, bounds.low + margin, bounds.high - margin);
  }
};

struct Apart {
  QTRAIN_HOST_DEVICE void operator()(float& low, float& high) const {
    const float before = low;
    low = high - margin < low ? high - margin : low;
    high = before + margin > high ? before + margin : high;
  }
};

struct LimitedBy {
  QTRAIN_HOST_DEVICE void operator()(float& g, float low) const { g = clip(g, -low, low); }
};

Tensor largest_magnitude(const Tensor& w) {
  Tensor largest = Tensor::empty({1}, DType::f32, w.device());
  reduce<1, Maximum>(backend(w.device()).stream(), w.numel(), Magnitude(), largest.data<float>(),
                     w.data<float>());
  return largest;
}

}  // namespace

GridQuantizer::GridQuantizer(std::string_view op, const QuantizerSpec& spec, const GridStart& start,
                             BitRange range)
    : Quantizer(spec.bits),
      op_(op),
      start_(start),
      range_(std::move(range)),
      initialized_(add_counter("initialized")) {
  check_bits(spec.bits);
}

void GridQuantizer::check_bits(int bits) const {
  if (bits >= float_bits || (bits >= range_.least && bits <= range_.most)) return;
  throw ValueError({.where = std::string(op_),
                    .what = "bit-width out of range",
                    .got = std::to_string(bits),
                    .expected = fmt::format("{}..{}, or {}", range_.least,
                                            std::min(range_.most, float_bits - 1), float_bits),
                    .hint = bits < range_.least ? range_.why_not_fewer : range_.why_not_more});
}

bool GridQuantizer::depends_on_weights(Quantity quantity) const {
  return quantity != Quantity::bits && start_.given_step == 0 &&
         !(quantity == Quantity::exponent && start_.has_exponent);
}

Tensor GridQuantizer::first_value(Quantity quantity, const Bounds& bounds) const {
  constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
  if (depends_on_weights(quantity)) return Tensor::full({1}, unknown);
  return Tensor::full({1}, FirstValue{start_, quantity, bounds}(unknown, 0));
}

void GridQuantizer::add_learned(std::string name, Quantity quantity, const Bounds& bounds) {
  Tensor number = first_value(quantity, bounds);
  number.set_requires_grad(true);
  numbers_.push_back({&add_parameter(std::move(name), number), quantity, bounds, true});
}

void GridQuantizer::add_fixed(std::string name, Quantity quantity) {
  constexpr Bounds none{-std::numeric_limits<float>::max(), std::numeric_limits<float>::max()};
  numbers_.push_back({&add_buffer(std::move(name), first_value(quantity, none)), quantity, none, false});
}

void GridQuantizer::set_bits(int bits) {
  if (bits == this->bits()) return;
  if (bits >= 1 && bits <= float_bits) check_bits(bits);
  Quantizer::set_bits(bits);
  start_.bits = static_cast<float>(bits);
  for (const Number& number : numbers_)
    number.tensor->copy_from(first_value(number.quantity, number.bounds).to(number.tensor->device()));
  *initialized_.data<std::int64_t>() = 0;
  note_change();  // the next training forward measures
}

void GridQuantizer::follow_weight(const Tensor& weight) {
  weight_ = started() ? Tensor() : weight;
}

bool GridQuantizer::started() const {
  return *initialized_.data<std::int64_t>() != 0;
}

void GridQuantizer::pair_learned(bool limit_gradients) {
  paired_ = true;
  limit_gradients_ = limit_gradients;
}

void GridQuantizer::before_update() {
  if (!paired_ || !limit_gradients_) return;
  const Tensor& low = *numbers_[0].tensor;
  for (const Number& number : numbers_) {
    if (!number.tensor->grad().defined()) continue;
    const Tensor gradient = number.tensor->grad().clone();
    update(backend(low.device()).stream(), 1, LimitedBy{}, gradient.data<float>(),
           static_cast<const float*>(low.data<float>()));
    number.tensor->set_grad(gradient);
  }
}

void GridQuantizer::after_update() {
  if (paired_)
    update(backend(numbers_[0].tensor->device()).stream(), 1, Apart{}, numbers_[0].tensor->data<float>(),
           numbers_[1].tensor->data<float>());
  for (const Number& number : numbers_) {
    if (!number.learned) continue;
    update(backend(number.tensor->device()).stream(), 1, IntoBounds{number.bounds},
           number.tensor->data<float>());
    number.tensor->bump_version();
  }
}

std::vector<Tensor> GridQuantizer::numbers_for(const Tensor& x) {
  std::vector<Tensor> now;
  for (const Number& number : numbers_) now.push_back(*number.tensor);
  if (started()) return now;
  // Before training, looking at the numbers is not too slow; gradients then reach those that are known.
  const auto known = [](const Tensor& t) { return !std::isnan(t.values()[0]); };
  if (!is_training() && std::ranges::all_of(now, known)) return now;
  const Tensor largest = largest_magnitude(weight_.defined() ? weight_ : x);
  for (std::size_t i = 0; i < now.size(); ++i) {
    const FirstValue first{start_, numbers_[i].quantity, numbers_[i].bounds};
    const float* const before = now[i].data<float>();
    Tensor filled = is_training() ? now[i] : Tensor::empty({1}, DType::f32, x.device());
    map(backend(x.device()).stream(), 1, first, filled.data<float>(), before, largest.data<float>());
    filled.bump_version();
    now[i] = filled;
  }
  if (is_training()) {
    *initialized_.data<std::int64_t>() = 1;
    weight_ = {};
  }
  return now;
}

Tensor GridQuantizer::forward(const Tensor& x) {
  check::tensor(op_, "x", x);
  return bits() >= float_bits ? x : quantize(x, numbers_for(x));
}

// The zeros change no maximum magnitude, so the first numbers can come from x.
Tensor GridQuantizer::forward_padded(const Tensor& x, const Border& padding) {
  if (bits() >= float_bits) return Quantizer::forward_padded(x, padding);
  check::tensor(op_, "x", x);
  return quantize_padded(x, padding, numbers_for(x));
}

Tensor GridQuantizer::quantize_padded(const Tensor& x, const Border& padding,
                                      const std::vector<Tensor>& numbers) {
  return quantize(pad2d(x, padding.begin, padding.end), numbers);
}

std::string GridQuantizer::describe() const {
  return fmt::format("{}, {} bits", op_, bits());
}

// --- options
// ------------------------------------------------------------------------------------------------------------

std::string_view op_of_role(Role role, std::string_view weight, std::string_view activation,
                            std::string_view bias) {
  return role == Role::weight ? weight : (role == Role::activation ? activation : bias);
}

GridStart grid_start(const QuantizerSpec& spec, bool powers) {
  return {.bits = static_cast<float>(spec.bits),
          .sign = spec.options.flag("sign") ? 1.0F : 0.0F,
          .zero = spec.options.has("with_zero") && spec.options.flag("with_zero") ? 1.0F : 0.0F,
          .powers = powers};
}

QuantizerInfo grid_info(std::string name, std::string summary, std::string source,
                        std::vector<OptionSpec> (*options_of)(Role),
                        std::shared_ptr<Quantizer> (*make)(const QuantizerSpec&)) {
  return {.name = std::move(name),
          .summary = std::move(summary),
          .source = std::move(source),
          .weight_options = options_of(Role::weight),
          .activation_options = options_of(Role::activation),
          .make = make,
          .roles = {Role::weight, Role::activation, Role::bias},
          .first_layer = {.quantize_input = false},
          .bias_options = options_of(Role::bias)};
}

OptionSpec real_option(std::string name, std::string default_value, std::string help) {
  return option(std::move(name), OptionType::real, std::move(default_value), std::move(help));
}

OptionSpec flag_option(std::string name, bool default_value, std::string help) {
  return option(std::move(name), OptionType::boolean, default_value ? "true" : "false", std::move(help));
}

OptionSpec sign_option(Role role) {
  return flag_option("sign", role != Role::activation, "one of the bits is a sign; off: negative x become 0");
}

OptionSpec zero_option(Role role) {
  return flag_option("with_zero", role == Role::activation, "one of the codes is 0");
}

OptionSpec limit_grad_option(const std::string& pair) {
  return flag_option("limit_grad", false,
                     pair + ": gradients of both clipped to plus and minus the smaller one's value");
}

OptionSpec step_option(Role role, std::string name, std::string help) {
  const bool measured = role != Role::activation;
  if (measured) help += "; 0: from the first weights";
  return real_option(std::move(name), measured ? "0" : "0.125", std::move(help));
}

float first_step(std::string_view op, const QuantizerSpec& spec, const std::string& name) {
  const double step = spec.options.real(name);
  const bool measured = step == 0 && spec.role != Role::activation;
  if (!measured && (step < 0x1p-60 || step > 0x1p60))
    throw ValueError(
        {.where = std::string(op),
         .what = fmt::format("option '{}'", name),
         .got = fmt::format("{}", step),
         .expected = "a step within 2^-60 and 2^60",
         .hint = spec.role == Role::activation ? "the range of inputs isn't known before training" : ""});
  return static_cast<float>(step);
}

void add_bounds_options(std::vector<OptionSpec>& all, const std::string& name, const std::string& least,
                        const std::string& most) {
  all.push_back(real_option(name + "_min", least, "least " + name));
  all.push_back(real_option(name + "_max", most, "most " + name));
}

Bounds bounds_from(std::string_view op, const Options& options, const std::string& name, double least,
                   double most, const std::string& why) {
  const double low = options.real(name + "_min");
  const double high = options.real(name + "_max");
  if (low < least || high > most || high - low <= 2 * static_cast<double>(margin))
    throw ValueError({.where = std::string(op),
                      .what = fmt::format("options '{0}_min' and '{0}_max'", name),
                      .got = fmt::format("{}..{}", low, high),
                      .expected = fmt::format("{} <= {}_min < {}_max <= {}", least, name, name, most),
                      .hint = why});
  return {static_cast<float>(low), static_cast<float>(high)};
}

BitRange width_range(const Bounds& b) {
  return {.least = static_cast<int>(std::ceil(b.low)),
          .why_not_fewer = "b starts there, and must lie in b_min..b_max",
          .most = static_cast<int>(std::floor(b.high)),
          .why_not_more = "b starts there, and must lie in b_min..b_max"};
}

}  // namespace qtrain::quant
