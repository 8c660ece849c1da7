// fatnn: steps at learned distances, with integer codes for results (P. Chen, B. Zhuang, C. Shen, "FATNN:
// Fast and Accurate Ternary Neural Networks", 2020, arXiv:2008.05101; `non-uniform` of github
// aim-uofa/model-quantization). Parameters alpha_i, i = 0 .. L-2, one of each a group; a_i = |alpha_i|.
//
//   half range, L = 2, 3, 4   u_i = (x - o_i) a_i,  o_i = sum_{j<i} 1/a_j,  q = sum_i round(clip(u_i, 0, 1))
//   full range, L = 3         q = round(clip(x a_0, -1, 0)) + round(clip(x a_1, 0, 1))
//   y = q, or with closed_form y = beta q: beta minimizes sum (x - beta q)^2 of the training batches
// Backward: m_i = 1 where u_i is in its clip's range, both ends included; times k_i = sqrt(n / sum m_i) with
// clamp_grad=STE-scale (n, and the sum, over the whole tensor; 1 where no element is in it); g' = beta g.
//   dL/dx = g' sum_i m_i a_i
//   half range  dL/dalpha_i = sign(alpha_i) sum g' (m_i (x - o_i) + sum_{j>i} m_j a_j / a_i^2)
//   full range  dL/dalpha_i = sign(alpha_i) sum g' m_i x
// round is half to even. |alpha| counts as 1e-8 at least; beta stays within 1e37; NaN passes.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/grouped_quantizer.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr float smallest_alpha = 1e-8F;
constexpr float largest_alpha = 1e15F;
constexpr float largest_basis = 1e37F;
constexpr std::int64_t most_steps = 3;

struct Step {
  float a = 1;
  float sign = 1;
  float gain = 1;  // k
  float offset = 0;
  float pull = 1;  // 1 / a^2: how far a moves the steps after it

  QTRAIN_HOST_DEVICE static Step of(float alpha, float gain, float offset) {
    const float a = clip(fabsf(alpha), smallest_alpha, largest_alpha);
    return {a, sign_of(alpha), gain, offset, 1.0F / (a * a)};
  }
  QTRAIN_HOST_DEVICE float scaled(float x) const { return (x - offset) * a; }
};

template <int K>
QTRAIN_HOST_DEVICE Terms<K> first_of(float a, float b, float c) {
  if constexpr (K == 1)
    return {a};
  else if constexpr (K == 2)
    return {a, b};
  else
    return {a, b, c};
}

template <int count, bool half>
struct FatnnMath {
  static constexpr int steps = count;
  std::array<const float*, steps> parameters{};
  std::array<const float*, 2> constants{};  // the steps' gains; beta
  Step step[steps];
  float beta = 1;

  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    float offset = 0;
    for (int i = 0; i < steps; ++i) {
      step[i] = Step::of(parameters[static_cast<std::size_t>(i)][group], constants[0][i], offset);
      if constexpr (half) offset += 1.0F / step[i].a;
    }
    beta = *constants[1];
  }

  // round(clip(u, 0, 1)) is [u > 1/2], and round(clip(u, -1, 0)) is -[u < -1/2]: a half goes to 0, the even
  // one.
  template <int i>
  QTRAIN_HOST_DEVICE float part(float x) const {
    const float u = step[i].scaled(x);
    return low<i> < 0 ? (u < -0.5F ? -1.0F : 0.0F) : (u > 0.5F ? 1.0F : 0.0F);
  }
  template <int i>
  QTRAIN_HOST_DEVICE bool passes(float x) const {
    if constexpr (i >= steps)
      return false;
    else {
      const float u = step[i].scaled(x);
      return u >= low<i> && u <= low<i> + 1.0F;
    }
  }
  QTRAIN_HOST_DEVICE float code(float x) const {
    float q = part<0>(x);
    if constexpr (steps > 1) q += part<1>(x);
    if constexpr (steps > 2) q += part<2>(x);
    return x == x ? q : x;
  }
  QTRAIN_HOST_DEVICE float forward(float x) const { return code(x) * beta; }

  QTRAIN_HOST_DEVICE Mapped<steps> backward(float x, float g) const {
    const float own = g * beta;
    float after = 0;  // sum of m_j a_j of the steps after this one
    const float t2 = own * gradient<2>(x, after);
    const float t1 = own * gradient<1>(x, after);
    const float t0 = own * gradient<0>(x, after);
    return {own * after, first_of<steps>(t0, t1, t2)};
  }

 private:
  template <int i>
  static constexpr float low = half || i > 0 ? 0.0F : -1.0F;

  // dq/dalpha_i; adds the step's m a to `after`.
  template <int i>
  QTRAIN_HOST_DEVICE float gradient(float x, float& after) const {
    if constexpr (i < steps) {
      const Step s = step[i];
      const bool inside = passes<i>(x);
      const float moved = half ? after * s.pull : 0.0F;
      after += inside ? s.gain * s.a : 0.0F;
      return s.sign * ((inside ? s.gain * (x - s.offset) : 0.0F) + moved);
    }
    return 0;
  }
};

// --- statistics
// ------------------------------------------------------------------------------------------------------------

template <class Math>
struct PassCounts {
  Math math;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { math.prepare(group); }
  QTRAIN_HOST_DEVICE Terms<Math::steps> operator()(float x) const {
    return first_of<Math::steps>(math.template passes<0>(x) ? 1.0F : 0.0F,
                                 math.template passes<1>(x) ? 1.0F : 0.0F,
                                 math.template passes<2>(x) ? 1.0F : 0.0F);
  }
};

// k of each step from how many elements of each group pass it.
struct GainOfStep {
  const float* passing;
  float* gains;
  std::int64_t groups;
  float elements;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    float sum = 0;
    for (std::int64_t group = 0; group < groups; ++group) sum += passing[i * groups + group];
    gains[i] = sum > 0 ? sqrtf(elements / sum) : 1.0F;
  }
};

template <class Math>
struct BasisTerms {
  Math math;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { math.prepare(group); }
  QTRAIN_HOST_DEVICE Terms<3> operator()(float x) const {
    const float q = math.code(x);
    return {q * x, q * q, x};
  }
};

// beta <- the batch's own, or the mean of those of all batches: `before` were seen.
struct NextBasis {
  float elements;
  float before;
  QTRAIN_HOST_DEVICE float operator()(float qx, float qq, float x, float beta) const {
    const float own = clip(qq > 0 ? qx / qq : x / elements, -largest_basis, largest_basis);
    return (beta * before + own) / (before + 1.0F);
  }
};

// --- levels
// ----------------------------------------------------------------------------------------------------------------

[[noreturn]] void refuse(std::string_view op, std::string what, std::string got, std::string expected,
                         std::string hint) {
  throw ValueError({std::string(op), std::move(what), std::move(got), std::move(expected), std::move(hint)});
}

bool is_half(const QuantizerSpec& spec) {
  return spec.role == Role::activation && spec.options.flag("half_range");
}

// A number of bits as a number of levels.
std::int64_t levels_of_bits(std::string_view op, bool half, int bits) {
  if (bits >= float_bits) return half ? most_steps + 1 : 3;
  if (half && bits <= 2) return std::int64_t{1} << bits;
  if (!half && bits == 2) return 3;
  if (half)
    refuse(op, "activations have 2 levels (1 bit) or 4 (2 bits)", fmt::format("{} bits", bits),
           "1 or 2 bits, or 32", "set --bits 2 or --a-bits 2; --set activation.levels=3 for ternary ones");
  refuse(op, "the levels are -1, 0 and 1, which take 2 bits", fmt::format("{} bits", bits), "2 bits, or 32",
         "set --bits 2, or --w-bits 2 for the weights alone");
}

std::int64_t levels_of(std::string_view op, const QuantizerSpec& spec) {
  const bool half = is_half(spec);
  const std::int64_t asked = spec.options.integer("levels");
  if (asked == 0) return levels_of_bits(op, half, spec.bits);
  if (half && (asked < 2 || asked > most_steps + 1))
    refuse(op, "a half range has a step for each level but one, and at most 3 steps",
           fmt::format("{} levels", asked), "2, 3 or 4", "");
  if (!half && asked != 3)
    refuse(op, "a full range has one step on each side of 0: the levels -1, 0 and 1",
           fmt::format("{} levels", asked), "3",
           spec.role == Role::weight ? "for activations alone: --set activation.levels" : "");
  return asked;
}

// Calls call(math) with the math of so many levels.
template <class Call>
auto with_math(bool half, std::int64_t levels, Call&& call) {
  if (!half) return call(FatnnMath<2, false>());
  if (levels == 2) return call(FatnnMath<1, true>());
  if (levels == 3) return call(FatnnMath<2, true>());
  return call(FatnnMath<3, true>());
}

// --- the quantizer
// ---------------------------------------------------------------------------------------------------------

class Fatnn final : public GroupedQuantizer {
 public:
  Fatnn(std::string_view op, const QuantizerSpec& spec)
      : GroupedQuantizer(op, spec),
        half_(is_half(spec)),
        asked_levels_(spec.options.integer("levels")),
        own_levels_(levels_of(op, spec)),
        levels_(own_levels_),
        scales_ste_(spec.options.choice("clamp_grad") == "STE-scale") {
    const Options& o = spec.options;
    const double boundary = o.has("boundary") ? o.real("boundary") : 1;
    if (!(o.real("scale") > 0))
      refuse(op, "option 'scale'", fmt::format("{}", o.real("scale")), "above 0", "");
    if (!(boundary > 0)) refuse(op, "option 'boundary'", fmt::format("{}", boundary), "above 0", "");
    for (std::size_t i = 0; i + 1 < static_cast<std::size_t>(own_levels_); ++i)
      alphas_[i] =
          &add_group_parameter(fmt::format("alpha{}", i), static_cast<float>(o.real("scale") / boundary));
    if (spec.role != Role::activation) return;
    averages_ = o.flag("custom_update");
    if (averages_ && !o.flag("closed_form"))
      refuse(op, "option 'custom_update' averages the scale of closed_form", "closed_form off", "",
             "set closed_form=true as well");
    if (!o.flag("closed_form")) return;
    if (groups() > 1)
      refuse(op, "closed_form has one scale for the whole tensor", fmt::format("{} groups", groups()),
             "1 group", "");
    basis_ = &add_buffer("basis", Tensor::full({1}, 1));
    if (averages_) count_forwards();
  }

  // The average takes the number of forwards.
  bool is_steady() const override { return !averages_ && GroupedQuantizer::is_steady(); }

  // The steps are parameters: there are as many as the quantizer was made with.
  void set_bits(int bits) override {
    const int before = this->bits();
    GroupedQuantizer::set_bits(bits);
    if (asked_levels_ > 0) return;
    try {
      const std::int64_t levels = levels_of_bits(op(), half_, bits);
      if (levels > own_levels_ && bits < float_bits)
        refuse(op(), "made with fewer steps", fmt::format("{} bits", bits),
               fmt::format("at most {} levels", own_levels_), "make it with the most bits that it gets");
      levels_ = std::min(levels, own_levels_);
    } catch (...) {
      GroupedQuantizer::set_bits(before);
      throw;
    }
  }

 protected:
  Tensor quantize(const Tensor& x, const Grouping& grouping) override {
    return with_math(half_, levels_, [&](auto math) {
      bind(math, x);
      if (basis_ != nullptr && is_training()) follow_basis(math, x, forwards());
      return run(math, x, grouping);
    });
  }
  void warm_up(const Tensor& x, const Grouping& /*grouping*/, std::int64_t t) override {
    if (basis_ == nullptr) return;
    with_math(half_, levels_, [&](auto math) {
      bind(math, x);
      follow_basis(math, x, t);
    });
  }
  // Zeros are elements, and x = 0 lies within the first step.
  bool ignores_zeros() const override { return !scales_ste_ && basis_ == nullptr; }

 private:
  template <class Math>
  std::array<Tensor, Math::steps> steps_of(const Math&) const {
    std::array<Tensor, Math::steps> steps;
    for (std::size_t i = 0; i < steps.size(); ++i) steps[i] = *alphas_[i];
    return steps;
  }

  // For passes of its own; gains and beta are 1.
  template <class Math>
  void bind(Math& math, const Tensor& x) {
    ones_ = Tensor::full({most_steps}, 1, x.device());
    for (std::size_t i = 0; i < math.parameters.size(); ++i)
      math.parameters[i] = alphas_[i]->template data<float>();
    math.constants = {ones_.data<float>(), ones_.data<float>()};
  }

  // `t` training forwards, this one included.
  template <class Math>
  void follow_basis(const Math& math, const Tensor& x, std::int64_t t) const {
    const Stream stream = backend(x.device()).stream();
    const Tensor sums = Tensor::empty({3}, DType::f32, x.device());
    auto* const s = sums.data<float>();
    reduce_groups<3, Sum>(stream, x.numel(), {}, BasisTerms<Math>{math}, s, x.data<float>());
    const NextBasis next{static_cast<float>(x.numel()), averages_ ? static_cast<float>(t - 1) : 0.0F};
    auto* const beta = basis_->data<float>();
    map(stream, 1, next, beta, s, s + 1, s + 2, beta);
    basis_->bump_version();
  }

  template <class Math>
  Tensor run(const Math& math, const Tensor& x, const Grouping& grouping) {
    Tensor gains = ones_;
    if (scales_ste_ && Tape::recording()) {
      const Stream stream = backend(x.device()).stream();
      const Tensor passing = Tensor::empty(Shape{Math::steps * grouping.groups()}, DType::f32, x.device());
      gains = Tensor::empty({most_steps}, DType::f32, x.device());
      reduce_groups<Math::steps, Sum>(stream, x.numel(), grouping, PassCounts<Math>{math},
                                      passing.data<float>(), x.data<float>());
      for_each(stream, Math::steps,
               GainOfStep{passing.data<float>(), gains.data<float>(), grouping.groups(),
                          static_cast<float>(x.numel())});
    }
    // A copy of beta: the next forward moves it, and backward may come after.
    return fake_quantize<Math::steps>(op(), x, math, steps_of(math), grouping,
                                      {gains, basis_ != nullptr ? basis_->clone() : ones_});
  }

  bool half_;
  std::int64_t asked_levels_;
  std::int64_t own_levels_;  // that there are parameters for
  std::int64_t levels_;      // in use
  bool scales_ste_;
  bool averages_ = false;
  std::array<const Tensor*, most_steps> alphas_{};
  const Tensor* basis_ = nullptr;
  Tensor ones_;  // of the last forward; recorded steps write over what is made once and kept
};

OptionSpec clamp_grad_option() {
  return option("clamp_grad", OptionType::choice, "none",
                "STE-scale: multiply the gradient through each step by sqrt(elements / passing elements)",
                {"none", "STE-scale"});
}

const Registration registration{{
    .name = "fatnn",
    .summary = "integer codes with learned steps: ternary weights, 2 to 4 levels for activations",
    .source = "Chen, Zhuang, Shen 2020, arXiv:2008.05101; github aim-uofa/model-quantization (non-uniform)",
    .weight_options = with_rule_options(
        {option("levels", OptionType::integer, "0", "3; 0: those of the bits, 3 at 2 bits"),
         option("scale", OptionType::real, "0.5", "initial alpha of each step"), clamp_grad_option(),
         option("adaptive", OptionType::choice, "var-mean",
                "var-mean: normalize each group of weights first, so that steps of the size 1 fit",
                {"none", "var-mean"})},
        Role::weight, {"levels", "adaptive", "gamma", "correlate"}),
    .activation_options = with_rule_options(
        {option("levels", OptionType::integer, "0",
                "2, 3 or 4, of a full range 3; 0: those of the bits, 2 at 1 bit and 4 at 2 (full range: 3)"),
         option("scale", OptionType::real, "3", "initial alpha of each step is scale / boundary"),
         option("boundary", OptionType::real, "1", "divisor of scale"), clamp_grad_option(),
         option("closed_form", OptionType::boolean, "false",
                "scale the codes by the factor that fits the batch best"),
         option("custom_update", OptionType::boolean, "false",
                "that factor is the mean over all training batches")},
        Role::activation, {"levels", "correlate"}),
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<Fatnn>(spec.role == Role::weight ? "fatnn weight" : "fatnn activation", spec);
    },
    .roles = {Role::weight, Role::activation},
    // No normalization follows the classifier to absorb the scale of the codes; pixels need more levels.
    .first_layer = float_edge,
    .last_layer = float_edge,
    .full_size_temporaries = 1,  // the normalized weights
}};

}  // namespace
}  // namespace qtrain::quant
