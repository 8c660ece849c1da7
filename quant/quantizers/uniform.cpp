// uniform: the min/max quantizer that PyTransformer (ricky40403) compares its DSQ with.
//
// For a range [lo, hi] and b bits:
//   n = 2^b - 1,  s = max((hi - lo) / n, 1e-8),  y = round(clamp((x - lo) / s, 0, n)) s + lo
//   round is half to even; dL/dx = dL/dy everywhere, and the range has no gradient
// Weights and bias: lo, hi = min and max of the tensor. Activations in training: the batch's mean of each
// sample's min and max, which also moves running = (1 - momentum) running + momentum now; in evaluation
// running, or the evaluated batch's range as long as running is empty (its start, 0 to 0).
//   relu        x' = max(x, 0) comes first; its gradient at 0 is 1
//   symmetric   lo = 0, q in [-2^(b-1), 2^(b-1) - 1], s = max / (2^(b-1) - 1) if max > |min|, else
//               |min| / 2^(b-1)
// s is computed in double and rounded to float32; for the bias in float32, as in the reference.
// A constant tensor has s = 1e-8 and y = lo. NaN passes; an infinite range gives NaN.
#include <limits>

#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr float smallest_step = 1e-8F;

enum class Levels { between, symmetric };  // between min and max; on both sides of 0

struct UniformCodes {
  float first = 0;
  float last = 0;
  UniformCodes() = default;
  UniformCodes(Levels levels, int bits) {
    const float half = std::ldexp(1.0F, bits - 1);
    first = levels == Levels::symmetric ? -half : 0.0F;
    last = levels == Levels::symmetric ? half - 1.0F : static_cast<float>(std::ldexp(1.0, bits) - 1.0);
  }
};

template <bool relu, bool rounds>
struct UniformMath {
  static constexpr bool straight_through = !relu;
  std::array<const float*, 1> constants{};  // {-lo, hi}
  UniformCodes codes;
  Levels levels = Levels::between;
  bool double_step = true;
  float lo = 0;
  float lift = 1;  // keeps ranges near float32's largest numbers from overflowing
  float unlift = 1;
  Divisor by_step;

  QTRAIN_HOST_DEVICE void prepare() {
    const float least = -constants[0][0];
    const float most = constants[0][1];
    const bool huge = most - least > 1e25F;
    lift = huge ? 0x1p-100F : 1.0F;
    unlift = huge ? 0x1p100F : 1.0F;
    const float low = least * lift;
    const float high = most * lift;
    float width = high - low;
    float intervals = codes.last;
    lo = low;
    if (levels == Levels::symmetric) {
      const bool upper = high > fabsf(low);
      width = upper ? high : fabsf(low);
      intervals = upper ? codes.last : -codes.first;
      lo = 0;
    }
    const double exact = levels == Levels::symmetric ? static_cast<double>(width)
                                                     : static_cast<double>(high) - static_cast<double>(low);
    const float step =
        double_step ? static_cast<float>(exact / static_cast<double>(intervals)) : width / intervals;
    by_step.set(step < smallest_step * lift ? smallest_step * lift : step);
  }

  QTRAIN_HOST_DEVICE float forward(float x) const {
    const float input = relu && x < 0 ? 0.0F : x;
    if constexpr (!rounds) return input;
    const float q = by_step.divide(clip(input * lift - lo, -1e30F, 1e30F));
    const float y = (round_half_to_even(clip(q, codes.first, codes.last)) * by_step.d + lo) * unlift;
    constexpr float largest = std::numeric_limits<float>::max();
    return y > largest ? largest : y;  // the last level may be an ulp above the largest element
  }
  QTRAIN_HOST_DEVICE float backward(float x, float g) const { return relu && x < 0 ? 0.0F : g; }
};

// {-x', x'}, whose maxima are -min x' and max x'.
struct Extremes {
  float floor;
  QTRAIN_HOST_DEVICE Terms<2> operator()(float x) const {
    const float input = x < floor ? floor : x;
    return {-input, input};
  }
};

// Scaled by a power of two, so that the sum of the ends doesn't overflow where their mean wouldn't.
constexpr float small_share = 0x1p-40F;
struct SmallEnds {
  QTRAIN_HOST_DEVICE Terms<2> operator()(float low, float high) const {
    return {low * small_share, high * small_share};
  }
};
struct MeanOfSmall {
  float count;
  QTRAIN_HOST_DEVICE float operator()(float sum) const { return sum / count * (1.0F / small_share); }
};

// 1 where the running range is the first batch's: it is empty, and doesn't start at zero.
struct StartsHere {
  float unless_zero_is_start;
  QTRAIN_HOST_DEVICE float operator()(float low, float high) const {
    return low == high ? unless_zero_is_start : 0.0F;
  }
};

// One end of the running range, moved towards sign * measured.
struct MovedEnd {
  float sign;
  float share, keep;
  QTRAIN_HOST_DEVICE float operator()(float running, float measured, float start) const {
    const float now = sign * measured;
    const float next = start == 1 ? now : running * keep + now * share;
    return next - next == 0 ? next : running;
  }
};

class Uniform final : public Quantizer {
 public:
  explicit Uniform(const QuantizerSpec& spec)
      : Quantizer(spec.bits),
        role_(spec.role),
        levels_(spec.options.flag("symmetric") ? Levels::symmetric : Levels::between),
        running_min_(add_buffer("running_min", initial_running(spec.role))),
        running_max_(add_buffer("running_max", initial_running(spec.role))) {
    check_bits(spec.bits);
    if (role_ != Role::activation) return;
    relu_ = spec.options.flag("relu");
    momentum_ = spec.options.real("momentum");
    starts_at_zero_ = spec.options.choice("start") == "zero";
    check::value(momentum_ >= 0 && momentum_ <= 1, op(), "option 'momentum'", std::to_string(momentum_),
                 "0..1");
  }

  std::string kind() const override { return role_ == Role::activation ? "UniformActivation" : "Uniform"; }
  std::string describe() const override {
    return std::string(op()) + ", " + std::to_string(bits()) + " bits";
  }

  void set_bits(int bits) override {
    check_bits(bits);
    Quantizer::set_bits(bits);
  }

  Tensor forward(const Tensor& x) override {
    if (bits() >= float_bits)
      return relu_ ? quantize<true, false>(x, Tensor::zeros({2}, DType::f32, x.device())) : x;
    check::tensor(op(), "x", x);
    check::sizes(x.numel() > 0 && x.rank() > 0, op(), "an empty tensor", x.str(), "at least one element");
    const Tensor range = role_ == Role::activation ? activation_range(x) : range_of(x);
    return relu_ ? quantize<true, true>(x, range) : quantize<false, true>(x, range);
  }

 private:
  std::string_view op() const {
    return role_ == Role::weight ? "uniform weight"
                                 : (role_ == Role::bias ? "uniform bias" : "uniform activation");
  }

  static Tensor initial_running(Role role) {
    return role == Role::activation ? Tensor::zeros({1}) : Tensor();
  }

  void check_bits(int bits) const {
    check::value(levels_ != Levels::symmetric || bits != 1, op(), "1 bit with symmetric levels", "1",
                 "2 bits or more", "one bit leaves no level above 0");
  }

  template <bool relu, bool rounds>
  Tensor quantize(const Tensor& x, const Tensor& range) const {
    const UniformMath<relu, rounds> math{.codes = UniformCodes(levels_, bits()),
                                         .levels = levels_,
                                         .double_step = role_ != Role::bias,
                                         .by_step = {}};
    return fake_quantize<0>(op(), x, math, {}, {}, {range});
  }

  Extremes extremes() const { return {relu_ ? 0.0F : -std::numeric_limits<float>::infinity()}; }

  // Ranges are {-lo, hi}.
  Tensor range_of(const Tensor& x) const {
    Tensor range = Tensor::empty({2}, DType::f32, x.device());
    reduce<2, Maximum>(backend(x.device()).stream(), x.numel(), extremes(), range.data<float>(),
                       x.data<float>());
    return range;
  }

  // The means of the samples' minima and maxima.
  Tensor mean_range(const Tensor& x) const {
    const Stream stream = backend(x.device()).stream();
    const std::int64_t samples = x.dim(0);
    const Tensor each = Tensor::empty({2 * samples}, DType::f32, x.device());
    Tensor range = Tensor::empty({2}, DType::f32, x.device());
    float* const minima = each.data<float>();
    reduce_groups<2, Maximum>(stream, x.numel(), Grouping{.outer = samples}, extremes(), minima,
                              x.data<float>());
    reduce<2, Sum>(stream, samples, SmallEnds(), range.data<float>(), minima, minima + samples);
    map(stream, 2, MeanOfSmall{static_cast<float>(samples)}, range.data<float>(), range.data<float>());
    return range;
  }

  Tensor activation_range(const Tensor& x) {
    const Stream stream = backend(x.device()).stream();
    if (is_training()) {
      Tensor range = mean_range(x);
      update_running(range);
      measured_ = true;
      return range;
    }
    // Asked once: it makes the host wait for the device.
    if (!measured_) measured_ = running_max_.item() != running_min_.item();
    if (!measured_) return mean_range(x);
    Tensor range = Tensor::empty({2}, DType::f32, x.device());
    map(stream, 1, Scaled{-1}, range.data<float>(), running_min_.data<float>());
    map(stream, 1, Copied(), range.data<float>() + 1, running_max_.data<float>());
    return range;
  }

  // Ranges that are not finite are left out.
  void update_running(const Tensor& range) {
    const Stream stream = backend(range.device()).stream();
    const auto share = static_cast<float>(momentum_);
    const auto keep = static_cast<float>(1 - momentum_);
    const Tensor first = Tensor::empty({1}, DType::f32, range.device());  // 1: nothing was measured before
    map(stream, 1, StartsHere{starts_at_zero_ ? 0.0F : 1.0F}, first.data<float>(), running_min_.data<float>(),
        running_max_.data<float>());
    float* const low = running_min_.data<float>();
    float* const high = running_max_.data<float>();
    map(stream, 1, MovedEnd{-1, share, keep}, low, low, range.data<float>(), first.data<float>());
    map(stream, 1, MovedEnd{1, share, keep}, high, high, range.data<float>() + 1, first.data<float>());
    running_min_.bump_version();
    running_max_.bump_version();
  }

  Role role_;
  Levels levels_;
  bool relu_ = false;
  bool starts_at_zero_ = true;
  double momentum_ = 0;
  bool measured_ = false;  // running is known not to be empty
  const Tensor& running_min_;
  const Tensor& running_max_;
};

OptionSpec symmetric_option() {
  return {.name = "symmetric",
          .type = OptionType::boolean,
          .default_value = "false",
          .help = "levels on both sides of 0, which is one of them, instead of between min and max",
          .choices = {}};
}

const Registration registration{{
    .name = "uniform",
    .summary = "uniform levels between min and max; activations: running averages of them",
    .source = "github ricky40403/PyTransformer",
    .weight_options = {symmetric_option()},
    .activation_options = {symmetric_option(),
                           {.name = "relu",
                            .type = OptionType::boolean,
                            .default_value = "false",
                            .help = "max(x, 0) first",
                            .choices = {}},
                           {.name = "momentum",
                            .type = OptionType::real,
                            .default_value = "0.1",
                            .help = "share of the newest batch in the running range",
                            .choices = {}},
                           {.name = "start",
                            .type = OptionType::choice,
                            .default_value = "zero",
                            .help = "the running range starts at 0 (the reference), or as the first batch's",
                            .choices = {"zero", "first-batch"}}},
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<Uniform>(spec);
    },
    .roles = {Role::weight, Role::activation, Role::bias},
    .first_layer = {},
    .last_layer = {.quantize = false},
    .bias_options = {symmetric_option()},
}};

}  // namespace
}  // namespace qtrain::quant
