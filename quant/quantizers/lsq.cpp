// lsq: learned step size quantization (Esser et al. 2020, arXiv:1902.08153; code of QTool, Chen et al.,
// github aim-uofa/model-quantization). One learned number a group, in either of two forms; g = dL/dy.
//
// parametrization=clip, QTool's: the clipping level c, a = |c|, n = L - 1 for L levels
//   v = x / a          w = clip(v, lo, 1)      lo = 0 (half_range) or -1
//   half_range         q = round(w n) / n
//   else               q = 2 round((w + 1)/2 n) / n - 1
//   y = a q
//   dL/dx = k m g      m = 1 where lo <= v <= 1, else 0
//   dL/dc = F sign(c) sum g (q - k m v)
//   k = 1, or with clamp_grad=STE-scale sqrt(elements / elements with m = 1), of the whole tensor
//   F = 1, or by grad_scale: fan-scale  scale sqrt(fan)        element-scale  scale sqrt(E)
//                            scale-fan  scale / sqrt(fan)      scale-element  scale / sqrt(E)
//
// parametrization=step, the paper's: the step s; signed Qn = ceil((L-1)/2), Qp = L-1-Qn, else Qn = 0, Qp =
// L-1
//   v = x / s          r = round(clip(v, -Qn, Qp))                       y = s r
//   dL/dx = g where -Qn < v < Qp, else 0
//   dL/ds = sum g (r - v where -Qn < v < Qp, else r) / sqrt(N Qp)
//   s starts at 2 mean|x| / sqrt(Qp) of the first training batch.
//
// Rounding is half to even. |c| and |s| below 1e-30 count as 1e-30; a negative s counts by its magnitude. NaN
// passes.
#include "engine/core/error.h"
#include "engine/ops/cast.h"
#include "quant/fake_quantize.h"
#include "quant/grouped_quantizer.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr float smallest = 1e-30F;
constexpr float largest = 1e30F;

// --- the clipping level
// ---------------------------------------------------------------------------------------------------

template <bool half_range, bool scales_clamp>
struct LsqClipMath {
  std::array<const float*, 1> parameters{};
  std::array<const float*, scales_clamp ? 1 : 0> constants{};  // k
  float n = 1;
  float factor = 1;  // F
  float a = 1, k = 1, signed_factor = 1;
  Divisor by_a, by_n;

  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    const float c = parameters[0][group];
    signed_factor = factor * sign_of(c);
    by_n.set(n);
    a = clip(fabsf(c), smallest, largest);
    by_a.set(a);
    if constexpr (scales_clamp) k = *constants[0];
  }

  static constexpr float low = half_range ? 0.0F : -1.0F;
  // Beyond 2a the exact quotient doesn't matter, and infinity has none.
  QTRAIN_HOST_DEVICE float quotient(float x) const { return by_a.divide(clip(x, -2 * a, 2 * a)); }
  QTRAIN_HOST_DEVICE static bool inside(float v) { return v >= low && v <= 1.0F; }
  QTRAIN_HOST_DEVICE float quantized(float v) const {
    const float w = clip(v, low, 1.0F);
    if constexpr (half_range) return by_n.divide(round_half_to_even(w * n));
    return 2.0F * by_n.divide(round_half_to_even((w + 1.0F) / 2.0F * n)) - 1.0F;
  }
  QTRAIN_HOST_DEVICE float forward(float x) const { return quantized(quotient(x)) * a; }
  QTRAIN_HOST_DEVICE Mapped<1> backward(float x, float g) const {
    const float v = quotient(x);
    const float pass = inside(v) ? k : 0.0F;
    return {g * pass, {signed_factor * g * (quantized(v) - (inside(v) ? k * v : 0.0F))}};
  }
};

// Counts the elements that the clamp passes.
template <class Math>
struct Passing {
  Math math;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { math.prepare(group); }
  QTRAIN_HOST_DEVICE Terms<1> operator()(float x) const {
    return {math.inside(math.quotient(x)) ? 1.0F : 0.0F};
  }
};

// k from how many of all elements the clamp passes.
struct ClampScale {
  float all;
  QTRAIN_HOST_DEVICE float operator()(float passing) const {
    return passing > 0 ? sqrtf(all / passing) : 1.0F;
  }
};

enum class GradientScale { none, fan_scale, scale_fan, element_scale, scale_element };

GradientScale parse_gradient_scale(const std::string& name) {
  if (name == "fan-scale") return GradientScale::fan_scale;
  if (name == "scale-fan") return GradientScale::scale_fan;
  if (name == "element-scale") return GradientScale::element_scale;
  if (name == "scale-element") return GradientScale::scale_element;
  return GradientScale::none;
}

// Elements that share a learned number: the option, or 0.
std::int64_t given_elements(std::string_view op, const QuantizerSpec& spec) {
  const std::int64_t elements = spec.options.integer("elements");
  check::value(elements >= 0, op, "option 'elements'", std::to_string(elements), "0 or more");
  return elements;
}

float initial_clip(std::string_view op, const QuantizerSpec& spec) {
  const double boundary = spec.options.real("boundary");
  check::value(boundary > 0, op, "option 'boundary'", std::to_string(boundary), "more than 0");
  return static_cast<float>(boundary);
}

class LsqClip final : public GroupedQuantizer {
 public:
  LsqClip(std::string_view op, const QuantizerSpec& spec)
      : GroupedQuantizer(op, spec),
        gradient_scale_(parse_gradient_scale(spec.options.choice("grad_scale"))),
        scale_(spec.options.real("scale")),
        scales_clamp_(spec.options.choice("clamp_grad") == "STE-scale"),
        elements_(given_elements(op, spec)),
        shape_(spec.shape),
        clip_(add_group_parameter("clip", initial_clip(op, spec))) {
    // The last batch of an epoch may be smaller; the factor stays the first one's.
    const bool by_batch = uses_elements() && role() != Role::weight && elements_ == 0;
    if (by_batch) batch_elements_ = &add_counter("batch_elements");
  }

 protected:
  // An even number of levels on both sides of 0 leaves 0 out.
  bool ignores_zeros() const override { return half_range() || levels() % 2 == 1; }

  void warm_up(const Tensor& x, const Grouping& grouping, std::int64_t t) override {
    follow_maximum(clip_, x, grouping, t);
  }

  Tensor quantize(const Tensor& x, const Grouping& grouping) override {
    if (is_training() && batch_elements_ != nullptr && *batch_elements_->data<std::int64_t>() == 0) {
      *batch_elements_->data<std::int64_t>() = x.numel();
      batch_elements_->bump_version();
    }
    if (half_range()) return scales_clamp_ ? run<true, true>(x, grouping) : run<true, false>(x, grouping);
    return scales_clamp_ ? run<false, true>(x, grouping) : run<false, false>(x, grouping);
  }
  // Whatever counts elements counts the zeros, too.
  Tensor quantize_padded(const Tensor& x, const Border& padding) override {
    if (half_range() || scales_clamp_ || uses_elements() || groups() > 1)
      return GroupedQuantizer::quantize_padded(x, padding);
    return fake_quantize_padded<1>(op(), x, padding, math<false, false>(x), {clip_});
  }
  bool quantizes_bf16() const override { return true; }

 private:
  bool uses_elements() const {
    return gradient_scale_ == GradientScale::element_scale || gradient_scale_ == GradientScale::scale_element;
  }

  // fan: what one output of the layer sums over; of activations the channels.
  double fan(const Tensor& x) const {
    const Shape& shape = shape_.numel() > 1 ? shape_ : x.shape();
    if (role() != Role::weight) return static_cast<double>(shape.rank() > 1 ? shape[1] : 1);
    return static_cast<double>(shape.rank() == 4 ? shape.numel() / shape[0] : shape.numel());
  }

  double elements(const Tensor& x) const {
    if (elements_ > 0) return static_cast<double>(elements_);
    const std::int64_t first = batch_elements_ == nullptr ? 0 : *batch_elements_->data<std::int64_t>();
    return static_cast<double>(first > 0 ? first : x.numel()) / static_cast<double>(groups());
  }

  double gradient_factor(const Tensor& x) const {
    switch (gradient_scale_) {
      case GradientScale::fan_scale:
        return std::sqrt(fan(x)) * scale_;
      case GradientScale::scale_fan:
        return scale_ / std::sqrt(fan(x));
      case GradientScale::element_scale:
        return std::sqrt(elements(x)) * scale_;
      case GradientScale::scale_element:
        return scale_ / std::sqrt(elements(x));
      case GradientScale::none:
        break;
    }
    return 1;
  }

  template <bool half, bool scaled>
  LsqClipMath<half, scaled> math(const Tensor& x) const {
    LsqClipMath<half, scaled> math;
    math.n = static_cast<float>(levels() - 1);
    math.factor = static_cast<float>(gradient_factor(x));
    return math;
  }

  template <bool half, bool scaled>
  Tensor run(const Tensor& x, const Grouping& grouping) const {
    if constexpr (scaled)
      return fake_quantize<1>(op(), x, math<half, scaled>(x), {clip_}, grouping, {clamp_scale(x, grouping)});
    return fake_quantize<1>(op(), x, math<half, scaled>(x), {clip_}, grouping);
  }

  // k
  Tensor clamp_scale(const Tensor& x, const Grouping& grouping) const {
    if (!Tape::recording()) return Tensor::full({1}, 1, x.device());
    return half_range() ? clamp_scale_of<true>(x, grouping) : clamp_scale_of<false>(x, grouping);
  }
  template <bool half>
  Tensor clamp_scale_of(const Tensor& x, const Grouping& grouping) const {
    const Stream stream = backend(x.device()).stream();
    Passing<LsqClipMath<half, false>> passing;
    passing.math.parameters[0] = clip_.data<float>();
    Tensor counts = Tensor::empty({grouping.groups()}, DType::f32, x.device());
    Tensor k = Tensor::empty({1}, DType::f32, x.device());
    const Tensor measured = cast(x.detach(), DType::f32);
    reduce_groups<1, Sum>(stream, x.numel(), grouping, passing, counts.data<float>(), measured.data<float>());
    reduce<1, Sum>(stream, counts.numel(), Itself(), k.data<float>(), counts.data<float>());
    map(stream, 1, ClampScale{static_cast<float>(x.numel())}, k.data<float>(), k.data<float>());
    return k;
  }

  GradientScale gradient_scale_;
  double scale_;
  bool scales_clamp_;
  std::int64_t elements_;
  Shape shape_;
  const Tensor& clip_;
  const Tensor* batch_elements_ = nullptr;
};

// --- the step
// -------------------------------------------------------------------------------------------------------------

struct LsqStepMath {
  std::array<const float*, 1> parameters{};
  float low = 0, high = 1;  // -Qn, Qp
  float factor = 1;         // 1/sqrt(N Qp)
  float s = 1, signed_factor = 1;
  Divisor by_s;

  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    const float step = parameters[0][group];
    s = clip(fabsf(step), smallest, largest);
    signed_factor = step < 0 ? -factor : factor;
    by_s.set(s);
  }
  QTRAIN_HOST_DEVICE float quotient(float x) const {
    return by_s.divide(clip(x, (low - 1.0F) * s, (high + 1.0F) * s));
  }
  QTRAIN_HOST_DEVICE float rounded(float v) const { return round_half_to_even(clip(v, low, high)); }
  QTRAIN_HOST_DEVICE float forward(float x) const { return rounded(quotient(x)) * s; }
  QTRAIN_HOST_DEVICE Mapped<1> backward(float x, float g) const {
    const float v = quotient(x);
    const bool inside = v > low && v < high;
    return {inside ? g : 0.0F, {signed_factor * g * (rounded(v) - (inside ? v : 0.0F))}};
  }
};

// The step itself where it is known; else 2 mean|x| / sqrt(Qp), of a group of zeros 1/Qp.
struct FirstStep {
  float elements;  // of a group
  float qp;
  QTRAIN_HOST_DEVICE float operator()(float sum, float before) const {
    const float start = sum == 0 ? 1.0F / qp : 2.0F * (sum / elements) / sqrtf(qp);
    return before != 0 ? before : clip(start, smallest, largest);
  }
};

class LsqStep final : public GroupedQuantizer {
 public:
  LsqStep(std::string_view op, const QuantizerSpec& spec)
      : GroupedQuantizer(op, spec, 1),
        signed_(!half_range()),
        has_levels_(spec.options.integer("levels") > 0),
        elements_(given_elements(op, spec)),
        step_(add_step()),
        initialized_(add_counter("initialized")) {
    for (const char* option : {"grad_scale", "clamp_grad"})
      check::value(spec.options.choice(option) == "none", op,
                   std::string("option '") + option + "' has no meaning beside parametrization=step",
                   spec.options.choice(option), "none");
    require_both_sides(levels());
  }

  void set_bits(int bits) override {
    if (!has_levels_ && bits == 1) require_both_sides(2);
    GroupedQuantizer::set_bits(bits);
  }

 protected:
  Tensor quantize(const Tensor& x, const Grouping& grouping) override {
    const auto top = static_cast<float>(levels() - 1);
    LsqStepMath math;
    math.low = signed_ ? -std::ceil(top / 2) : 0.0F;
    math.high = top + math.low;
    math.factor = static_cast<float>(1 / std::sqrt(elements(x) * static_cast<double>(math.high)));
    return fake_quantize<1>(op(), x, math, {current_step(x, grouping, math.high)}, grouping);
  }
  bool quantizes_bf16() const override { return true; }

 private:
  // 0: not known yet. A value that was given or loaded stays.
  const Tensor& add_step() {
    Tensor step = Tensor::zeros(groups() == 1 ? Shape{1} : parameter_shape(role(), groups()));
    step.set_requires_grad(true);
    return add_parameter("step", step);
  }

  void require_both_sides(std::int64_t levels) const {
    check::value(!signed_ || levels >= 3, op(), "a step needs levels on both sides of 0",
                 std::to_string(levels) + " levels", "2 bits, or 3 levels, at least");
  }

  // N: weights, or features of a sample, that share a step.
  double elements(const Tensor& x) const {
    if (elements_ > 0) return static_cast<double>(elements_);
    const std::int64_t samples = role() == Role::weight || x.rank() < 2 ? 1 : x.dim(0);
    const std::int64_t features = x.numel() / samples;
    return static_cast<double>(features) / static_cast<double>(groups());
  }

  // The learned step; before the first training forward, what it would start at.
  Tensor current_step(const Tensor& x, const Grouping& grouping, float qp) {
    if (*initialized_.data<std::int64_t>() != 0) return step_;
    if (!is_training()) {
      Tensor step = step_.clone();
      start_step(step, x, grouping, qp);
      return step;
    }
    start_step(step_, x, grouping, qp);
    step_.bump_version();
    *initialized_.data<std::int64_t>() = 1;
    initialized_.bump_version();
    return step_;
  }

  static void start_step(const Tensor& step, const Tensor& x, const Grouping& grouping, float qp) {
    const Stream stream = backend(x.device()).stream();
    const Tensor measured = cast(x.detach(), DType::f32);
    Tensor sums = Tensor::empty({grouping.groups()}, DType::f32, x.device());
    reduce_groups<1, Sum>(stream, x.numel(), grouping, Magnitude(), sums.data<float>(),
                          measured.data<float>());
    const std::int64_t elements = x.numel() / grouping.groups();
    map(stream, grouping.groups(), FirstStep{static_cast<float>(elements), qp}, step.data<float>(),
        sums.data<float>(), step.data<float>());
  }

  bool signed_;
  bool has_levels_;
  std::int64_t elements_;
  const Tensor& step_;
  const Tensor& initialized_;
};

// --- the registration
// -----------------------------------------------------------------------------------------------------

std::vector<OptionSpec> options(Role role) {
  return with_rule_options(
      {{"parametrization",
        OptionType::choice,
        "clip",
        "what is learned: the clipping level (QTool), or the step (the paper)",
        {"clip", "step"}},
       {"boundary", OptionType::real, "1", "initial clipping level", {}},
       {"grad_scale",
        OptionType::choice,
        "none",
        "factor of the clipping level's gradient: scale times or over sqrt(fan) or sqrt(elements)",
        {"none", "fan-scale", "scale-fan", "element-scale", "scale-element"}},
       {"scale", OptionType::real, "0.5", "scale in grad_scale", {}},
       {"elements",
        OptionType::integer,
        "0",
        role == Role::weight
            ? "number of weights that share a clipping level or step, for its gradient; 0: counted"
            : "values that share a clipping level (of a batch) or step (of a sample), for its gradient; 0: "
              "counted (of the first batch)",
        {}},
       {"clamp_grad",
        OptionType::choice,
        "none",
        "STE-scale: multiply the gradient that passes the clamp by sqrt(all / passing elements)",
        {"none", "STE-scale"}}},
      role);
}

std::string_view op_name(Role role) {
  if (role == Role::weight) return "lsq weight";
  return role == Role::activation ? "lsq activation" : "lsq output";
}

const Registration registration{{
    .name = "lsq",
    .summary = "learned step size: the clipping level or the step is trained with the network",
    .source = "Esser et al. 2020, arXiv:1902.08153; github aim-uofa/model-quantization",
    .weight_options = options(Role::weight),
    .activation_options = options(Role::activation),
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      if (spec.options.choice("parametrization") == "step")
        return std::make_shared<LsqStep>(op_name(spec.role), spec);
      return std::make_shared<LsqClip>(op_name(spec.role), spec);
    },
    .roles = {Role::weight, Role::activation, Role::output},
    .first_layer = float_edge,
    .last_layer = float_edge,
    .output_options = options(Role::output),
}};

}  // namespace
}  // namespace qtrain::quant
