// ttq: trained ternary quantization of weights (C. Zhu, S. Han, H. Mao, W. J. Dally 2017, arXiv:1612.01064).
// Learned values wp and wn, one of each a group, and a threshold D = t max|w| from the weights of the group:
//
//   y = wp where w > D,  -wn where w < -D,  0 elsewhere
// Backward:
//                  dL/dw                                    dL/dwp          dL/dwn
//   exact          g wp, g wn, g (above, below, between)    sum g, above    -sum g, below
//   paper          the same                                 the same        +sum g, below
//   reference      g wp above, 0 elsewhere                  the same        +sum g, below
// `exact` is the derivative; the paper prints +, which moves wn uphill; `reference` is what the class of
// github aim-uofa/model-quantization computes. With grad_scale=mean the sums of a group are divided by
// its size. wp and wn start as the means of the magnitudes above and below. A NaN stays one, an infinite
// weight becomes one.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/grouped_quantizer.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

enum class Rule { exact, paper, reference };

template <Rule rule>
struct TtqMath {
  std::array<const float*, 2> parameters{};  // wp, wn
  std::array<const float*, 1> constants{};   // D
  float share = 1;                           // of the gradients of wp and wn that counts
  float wp = 1, wn = 1, threshold = 0;

  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    wp = parameters[0][group];
    wn = parameters[1][group];
    threshold = constants[0][group];
  }
  QTRAIN_HOST_DEVICE float forward(float w) const {
    return w > threshold ? wp : (w < -threshold ? -wn : w - w);  // w - w: 0, or NaN for one
  }
  QTRAIN_HOST_DEVICE Mapped<2> backward(float w, float g) const {
    const bool above = w > threshold;
    const bool below = w < -threshold;
    const float inner = rule == Rule::reference ? 0.0F : (below ? wn : 1.0F);
    const float wn_sign = rule == Rule::exact ? -1.0F : 1.0F;
    return {g * (above ? wp : inner), {above ? share * g : 0.0F, below ? wn_sign * share * g : 0.0F}};
  }
};

// Sums and counts of the magnitudes above and below, as shares of the largest: their sum can't overflow.
struct SelectedTerms {
  const float* maxima;
  const float* thresholds;
  float largest = 1, threshold = 0;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    largest = maxima[group];
    threshold = thresholds[group];
  }
  QTRAIN_HOST_DEVICE Terms<4> operator()(float w) const {
    const bool above = w > threshold;
    const bool below = w < -threshold;
    const float share = fabsf(w) / largest;
    return {above ? share : 0.0F, above ? 1.0F : 0.0F, below ? share : 0.0F, below ? 1.0F : 0.0F};
  }
};

// Gives a value that isn't known (0) the mean of its side, of the other side where its own is empty.
struct FillUnknown {
  QTRAIN_HOST_DEVICE float operator()(float value, float largest, float sum, float count, float other_sum,
                                      float other_count) const {
    const float mean = count > 0 ? sum / count : (other_count > 0 ? other_sum / other_count : 0.0F);
    return value == 0 ? largest * mean : value;
  }
};

bool has_zero(const Tensor& t) {
  const std::vector<float> values = t.values();
  return std::ranges::find(values, 0.0F) != values.end();
}

[[noreturn]] void refuse(std::string what, std::string got, std::string expected, std::string hint = "") {
  throw ValueError({"ttq weight", std::move(what), std::move(got), std::move(expected), std::move(hint)});
}

void require_ternary(int bits, std::int64_t levels) {
  if (levels != 0 && levels != 3)
    refuse("the levels are -wn, 0 and wp", fmt::format("{} levels", levels), "3");
  if (levels == 0 && bits != 2 && bits < float_bits)
    refuse("the levels are -wn, 0 and wp, which take 2 bits", fmt::format("{} bits", bits), "2 bits, or 32",
           "set --bits 2, or --w-bits 2 for the weights alone");
}

class Ttq final : public GroupedQuantizer {
 public:
  explicit Ttq(const QuantizerSpec& spec)
      : GroupedQuantizer("ttq weight", spec),
        levels_(spec.options.integer("levels")),
        share_(static_cast<float>(spec.options.real("threshold"))),
        wp_(add_value("wp", spec.options.real("wp"))),
        wn_(add_value("wn", spec.options.real("wn"))) {
    require_ternary(spec.bits, levels_);
    if (!(share_ >= 0 && share_ < 1))
      refuse("option 'threshold'", fmt::format("{}", share_), "0 or more, below 1",
             "it is a share of the largest weight");
    const std::string& rule = spec.options.choice("backward");
    averages_ = spec.options.choice("grad_scale") == "mean";
    rule_ = rule == "exact" ? Rule::exact : (rule == "paper" ? Rule::paper : Rule::reference);
  }

  void set_bits(int bits) override {
    if (bits >= 1 && bits <= float_bits) require_ternary(bits, levels_);
    GroupedQuantizer::set_bits(bits);
  }

 protected:
  Tensor quantize(const Tensor& w, const Grouping& grouping) override {
    const Stream stream = backend(w.device()).stream();
    const Tensor maxima = Tensor::empty({groups()}, DType::f32, w.device());
    const Tensor thresholds = Tensor::empty({groups()}, DType::f32, w.device());
    reduce_groups<1, Maximum>(stream, w.numel(), grouping, Magnitude{}, maxima.data<float>(),
                              w.data<float>());
    map(stream, groups(), Scaled{share_}, thresholds.data<float>(), maxima.data<float>());
    const std::array<Tensor, 2> values = known_values(w, grouping, maxima, thresholds);
    const auto run = [&](auto math) {
      if (averages_) math.share = static_cast<float>(groups()) / static_cast<float>(w.numel());
      return fake_quantize<2>(op(), w, math, values, grouping, {thresholds});
    };
    switch (rule_) {
      case Rule::exact:
        return run(TtqMath<Rule::exact>());
      case Rule::paper:
        return run(TtqMath<Rule::paper>());
      case Rule::reference:
        break;
    }
    return run(TtqMath<Rule::reference>());
  }

 private:
  // 0: not known before the first weights are seen. A file may know it.
  const Tensor& add_value(const std::string& name, double given) {
    if (given < 0) refuse(fmt::format("option '{}'", name), fmt::format("{}", given), "0 or more");
    Tensor value = Tensor::full({groups(), 1}, static_cast<float>(given));
    value.set_requires_grad(true);
    return add_parameter(name, value);
  }

  // The parameters. The first training forward fills in what isn't known; until then evaluation uses what it
  // would fill in.
  std::array<Tensor, 2> known_values(const Tensor& w, const Grouping& grouping, const Tensor& maxima,
                                     const Tensor& thresholds) {
    // Looking makes the host wait for the device. Training needn't: what is known stays as it is.
    if (!known_ && !is_training()) known_ = !has_zero(wp_) && !has_zero(wn_);
    if (known_) return {wp_, wn_};
    const Stream stream = backend(w.device()).stream();
    const Tensor terms = Tensor::empty({4 * groups()}, DType::f32, w.device());
    const float* const t = terms.data<float>();
    const std::int64_t n = groups();
    reduce_groups<4, Sum>(stream, w.numel(), grouping,
                          SelectedTerms{maxima.data<float>(), thresholds.data<float>()}, terms.data<float>(),
                          w.data<float>());
    std::array<Tensor, 2> values =
        is_training() ? std::array<Tensor, 2>{wp_, wn_} : std::array<Tensor, 2>{wp_.clone(), wn_.clone()};
    const auto fill = [&](const Tensor& value, const float* own, const float* other) {
      auto* const v = value.data<float>();
      map(stream, n, FillUnknown{}, v, v, maxima.data<float>(), own, own + n, other, other + n);
      value.bump_version();
    };
    fill(values[0], t, t + 2 * n);
    fill(values[1], t + 2 * n, t);
    known_ = is_training();
    return values;
  }

  std::int64_t levels_;
  float share_;
  Rule rule_ = Rule::exact;
  bool averages_ = false;
  const Tensor& wp_;
  const Tensor& wn_;
  bool known_ = false;  // wp and wn have their initial values
};

const Registration registration{{
    .name = "ttq",
    .summary = "trained ternary weights: a learned value on each side of 0; activations stay float",
    .source = "Zhu, Han, Mao, Dally 2017, arXiv:1612.01064; github aim-uofa/model-quantization (TTN)",
    .weight_options = with_rule_options(
        {option("levels", OptionType::integer, "0", "3; 0: those of the bits, 3 at 2 bits"),
         option("threshold", OptionType::real, "0.05", "weights within this share of the largest become 0"),
         option("backward", OptionType::choice, "exact",
                "exact: the derivative; paper, reference: as printed there, as computed by QTool",
                {"exact", "paper", "reference"}),
         option("grad_scale", OptionType::choice, "none",
                "mean: divide the gradients of wp and wn by the number of weights that have them",
                {"none", "mean"}),
         option("wp", OptionType::real, "0", "initial positive value; 0: mean of the weights above"),
         option("wn", OptionType::real, "0",
                "initial magnitude of the negative value; 0: mean of the weights below")},
        Role::weight, {"levels", "adaptive", "norm_groups", "restore", "gamma", "correlate"}),
    .activation_options = {},
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<Ttq>(spec);
    },
    .roles = {Role::weight},
    // As in the paper.
    .first_layer = {.quantize = false},
    .last_layer = {.quantize = false},
    // A value collects the gradients of hundreds of weights: at the rate that suits the weights it moves that
    // much faster, and from random weights runs away. See docs/quantizers/ttq.md.
    .from_scratch = {{"grad_scale", "mean"}},
}};

}  // namespace
}  // namespace qtrain::quant
