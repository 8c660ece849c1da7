#include "quant/grouped_quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/core/error.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/rearrange.h"
#include "quant/fake_quantize.h"
#include "quant/group_statistics.h"

namespace qtrain::quant {
namespace {

// --- the rules' scalar math
// ------------------------------------------------------------------------------------------------------------

// The mean of n equal values is rounded, by up to about 4e-6 of them: less spread than this share of the mean
// is none.
constexpr float least_spread = 1e-5F;

// (x - mean) / std; a group without spread becomes 0, with gradient 0.
struct Normalize {
  std::array<const float*, 2> constants{};
  float mean = 0, present = 1;
  Divisor by_std;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    mean = constants[0][group];
    present = constants[1][group] <= least_spread * fabsf(mean) ? 0.0F : 1.0F;
    by_std.set(clip(constants[1][group], 1e-30F, 1e30F));
  }
  QTRAIN_HOST_DEVICE float forward(float x) const {
    constexpr float most = std::numeric_limits<float>::max();  // a difference may overflow
    return present * by_std.divide(clip(x - mean, -most, most));
  }
  QTRAIN_HOST_DEVICE float backward(float /*x*/, float g) const { return present * by_std.divide(g); }
};

struct Restore {
  std::array<const float*, 2> constants{};
  float mean = 0, std = 0;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    mean = constants[0][group];
    std = constants[1][group];
  }
  QTRAIN_HOST_DEVICE float forward(float y) const { return y * std + mean; }
  QTRAIN_HOST_DEVICE float backward(float /*y*/, float g) const { return g * std; }
};

struct Gain {
  std::array<const float*, 1> parameters{};
  float gamma = 1;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { gamma = parameters[0][group]; }
  QTRAIN_HOST_DEVICE float forward(float q) const { return gamma * q; }
  QTRAIN_HOST_DEVICE Mapped<1> backward(float q, float g) const { return {g * gamma, {g * q}}; }
};

// The t-th clip from the mean of those before it and a maximum m.
struct FollowMaximum {
  float factor;
  float t;
  QTRAIN_HOST_DEVICE float operator()(float m, float before) const {
    return (m * factor + (t - 1) * before) / t;
  }
};

Tensor mixed(const Tensor& x, const Tensor& y, double prox) {
  return add(scale(x, static_cast<float>(prox)), scale(y, static_cast<float>(1 - prox)));
}

bool flag(const Options& options, std::string_view name) {
  return options.has(name) && options.flag(name);
}
std::int64_t integer(const Options& options, std::string_view name) {
  return options.has(name) ? options.integer(name) : 0;
}
double real(const Options& options, std::string_view name, double otherwise) {
  return options.has(name) ? options.real(name) : otherwise;
}

}  // namespace

GroupedQuantizer::GroupedQuantizer(std::string_view op, const QuantizerSpec& spec, std::int64_t usual_groups)
    : Quantizer(spec.bits), op_(op), role_(spec.role), layer_(spec.layer) {
  const Options& o = spec.options;
  levels_ = integer(o, "levels");
  groups_ = resolve_groups(integer(o, "groups"), spec, usual_groups);
  half_range_ = flag(o, "half_range");
  normalizes_ = o.has("adaptive") && o.choice("adaptive") == "var-mean";
  norm_groups_ = normalizes_ ? resolve_groups(integer(o, "norm_groups"), spec, groups_) : 1;
  restores_ = normalizes_ && flag(o, "restore");
  stable_ = integer(o, "stable");
  correlate_ = real(o, "correlate", -1);
  prox_ = real(o, "prox", 0);
  prox_epochs_ = integer(o, "prox_epochs");
  prox_milestones_ = integer(o, "prox_milestones");
  pads_after_ = flag(o, "padding_after_quant");
  loss_alpha_ = real(o, "quant_loss_alpha", 1);
  if (o.has("quant_loss")) loss_kind_ = parse_quantization_loss(o.choice("quant_loss"));
  check_levels(spec.bits);
  check::value(stable_ >= 0, op, "option 'stable'", std::to_string(stable_), "0 or more forwards");
  check::value(prox_ >= 0 && prox_ <= 1, op, "option 'prox'", fmt::format("{}", prox_), "0..1");
  check::value(prox_epochs_ >= 0, op, "option 'prox_epochs'", std::to_string(prox_epochs_), "0 or more");
  check::value(prox_milestones_ >= 0, op, "option 'prox_milestones'", std::to_string(prox_milestones_),
               "0 or more");
  check::value(prox_epochs_ == 0 || prox_milestones_ == 0, op, "options 'prox_epochs' and 'prox_milestones'",
               "both", "one of them");
  if (flag(o, "gamma")) gamma_ = &add_group_parameter("gamma", 1);
  if (stable_ > 0) count_forwards();
}

std::string GroupedQuantizer::describe() const {
  std::string text = levels_ > 0 && bits() < float_bits ? fmt::format("{}, {} levels", op_, levels_)
                                                        : fmt::format("{}, {} bits", op_, bits());
  if (groups_ > 1) text += fmt::format(", {} groups", groups_);
  return text;
}

void GroupedQuantizer::set_bits(int bits) {
  check_levels(bits);
  Quantizer::set_bits(bits);
}

void GroupedQuantizer::check_levels(int bits) const {
  const std::int64_t most = std::int64_t{1} << std::clamp(bits, 1, float_bits);
  check::value(levels_ == 0 || (levels_ >= 2 && levels_ <= most), op_, "option 'levels'",
               std::to_string(levels_), fmt::format("0, or 2 to 2^bits, {}", most));
}

std::int64_t GroupedQuantizer::levels() const {
  return levels_ > 0 ? levels_ : std::int64_t{1} << std::min(bits(), float_bits);
}

std::int64_t GroupedQuantizer::forwards() const {
  return forwards_ == nullptr ? 0 : *forwards_->data<std::int64_t>();
}

void GroupedQuantizer::count_forwards() {
  if (forwards_ == nullptr) forwards_ = &add_counter("forwards");
}

const Tensor& GroupedQuantizer::add_group_parameter(std::string name, float initial) {
  Tensor parameter = Tensor::full(parameter_shape(role_, groups_), initial);
  parameter.set_requires_grad(true);
  return add_parameter(std::move(name), parameter);
}

bool GroupedQuantizer::pads_first() const {
  return !pads_after_ && !ignores_zeros();
}

bool GroupedQuantizer::warming_up() const {
  // In training the forward is counted before this is asked.
  return stable_ > 0 && (is_training() ? forwards() <= stable_ : forwards() < stable_);
}

void GroupedQuantizer::start_epoch(const EpochStart& start) {
  const auto left = [](std::int64_t done, std::int64_t all) {
    return std::max(0.0, 1.0 - static_cast<double>(done) / static_cast<double>(all));
  };
  const double before = prox_;
  if (prox_epochs_ > 0) prox_ = left(start.epoch, prox_epochs_);
  if (prox_milestones_ > 0) prox_ = left(start.milestones + 1, prox_milestones_);
  if (prox_ != before) note_change();
}

Tensor GroupedQuantizer::take_loss() {
  return std::exchange(loss_, Tensor());
}

bool GroupedQuantizer::has_rules() const {
  return normalizes_ || stable_ > 0 || gamma_ != nullptr || prox_ > 0 || loss_kind_ != QuantizationLoss::none;
}

void GroupedQuantizer::start_forward(const Tensor& x) {
  check::floats(op_, "x", x);
  check::sizes(x.numel() > 0, op_, "an empty tensor", x.str(), "at least one element");
  if (is_training() && forwards_ != nullptr) {
    ++*forwards_->data<std::int64_t>();
    forwards_->bump_version();
  }
}

Tensor GroupedQuantizer::forward(const Tensor& x) {
  start_forward(x);
  const std::int64_t rows = std::lcm(groups_, norm_groups_);  // both kinds of groups are whole rows
  if (!needs_row_major(x, role_, rows)) return apply(x);
  return reshape(apply(reshape(x, {rows, -1})), x.shape().dims());
}

Tensor GroupedQuantizer::forward_padded(const Tensor& x, const Border& padding) {
  // What any rule has a use for is made as a tensor.
  if (has_rules() || bits() >= float_bits) return Quantizer::forward_padded(x, padding);
  start_forward(x);
  return quantize_padded(x, padding);
}

Tensor GroupedQuantizer::quantize_padded(const Tensor& x, const Border& padding) {
  const Tensor whole = pad2d(x, padding.begin, padding.end);
  return quantize(whole, grouping_of(op_, whole, role_, groups_));
}

Tensor GroupedQuantizer::apply(const Tensor& x) {
  if (bits() >= float_bits) return x;
  const Grouping grouping = grouping_of(op_, x, role_, groups_);
  Tensor normalized = x;
  Spread spread;
  Grouping norm_grouping;
  if (normalizes_) {
    norm_grouping = grouping_of(op_, x, role_, norm_groups_);
    spread = spread_of(x, norm_grouping);
    normalized = fake_quantize<0>(op_, x, Normalize(), {}, norm_grouping, {spread.mean, spread.std});
  }
  if (warming_up()) {
    if (is_training()) warm_up(normalized, grouping, forwards());
    return normalized;
  }
  Tensor y = quantize(normalized, grouping);
  if (gamma_ != nullptr) y = fake_quantize<1>(op_, y, Gain(), {*gamma_}, grouping);
  if (prox_ > 0 && is_training()) y = mixed(normalized, y, prox_);
  if (loss_kind_ != QuantizationLoss::none && is_training() && Tape::recording())
    loss_ = scale(quantization_loss(loss_kind_, normalized, y), static_cast<float>(loss_alpha_));
  if (restores_) y = fake_quantize<0>(op_, y, Restore(), {}, norm_grouping, {spread.mean, spread.std});
  return y;
}

void GroupedQuantizer::follow_maximum(const Tensor& clip, const Tensor& x, const Grouping& grouping,
                                      std::int64_t t) const {
  const Stream stream = backend(x.device()).stream();
  Tensor maxima = Tensor::empty({grouping.groups()}, DType::f32, x.device());
  reduce_groups<1, Maximum>(stream, x.numel(), grouping, Magnitude(), maxima.data<float>(), x.data<float>());
  const FollowMaximum follow{static_cast<float>(correlate_ > 0 ? correlate_ : 1), static_cast<float>(t)};
  map(stream, grouping.groups(), follow, clip.data<float>(), maxima.data<float>(), clip.data<float>());
  clip.bump_version();
}

std::vector<OptionSpec> rule_options(Role role, const std::vector<std::string>& without) {
  const bool weight = role == Role::weight;
  std::vector<OptionSpec> all;
  const auto add = [&](std::string name, OptionType type, std::string value, std::string help,
                       std::vector<std::string> choices = {}) {
    if (std::ranges::find(without, name) == without.end())
      all.push_back(option(std::move(name), type, std::move(value), std::move(help), std::move(choices)));
  };
  add("levels", OptionType::integer, "0", "number of levels; 0: 2^bits");
  if (!weight)
    add("half_range", OptionType::boolean, role == Role::activation ? "true" : "false",
        "codes from 0, for inputs that are never negative");
  add("groups", OptionType::integer, "0",
      weight ? "groups with their own parameters; 0: one an output channel (linear layers: one); -k: k "
               "kernels each"
             : "ranges of channels with their own parameters; 0: one; -k: k channels each");
  if (weight) {
    add("adaptive", OptionType::choice, "none", "var-mean: normalize each group of weights first",
        {"none", "var-mean"});
    add("norm_groups", OptionType::integer, "0",
        "groups of that normalization, as above; 0: those of the quantizer; 1: the whole tensor");
    add("restore", OptionType::boolean, "false", "undo that normalization after quantization");
  }
  if (role != Role::activation)
    add("gamma", OptionType::boolean, "false", "multiply the result by a learned gain a group");
  add("stable", OptionType::integer, "0",
      "first training forwards that stay float (clips follow the maximum)");
  add("correlate", OptionType::real, "-1", "factor of that maximum; negative: 1");
  add("prox", OptionType::real, "0", "share of the unquantized value in the result");
  add("prox_epochs", OptionType::integer, "0", "let that share fall from 1 to 0 over so many epochs");
  add("prox_milestones", OptionType::integer, "0",
      "let it be 1 - (k + 1) / N after k milestones of the learning rate's schedule");
  add("quant_loss", OptionType::choice, "none", "add the quantization error to the loss",
      {"none", "l1", "l2", "qdl"});
  add("quant_loss_alpha", OptionType::real, "1", "weight of that part of the loss");
  if (role == Role::activation)
    add("padding_after_quant", OptionType::boolean, "false",
        "pad the quantized input instead of the float one");
  return all;
}

std::vector<OptionSpec> with_rule_options(std::vector<OptionSpec> own, Role role,
                                          const std::vector<std::string>& without) {
  for (OptionSpec& option : rule_options(role, without)) own.push_back(std::move(option));
  return own;
}

}  // namespace qtrain::quant
