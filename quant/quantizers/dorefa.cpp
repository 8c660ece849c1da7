// dorefa: DoReFa-Net (Zhou et al. 2016, arXiv:1606.06160) with the rules of QTool
// (aim-uofa/model-quantization). n = L - 1, a = boundary, rne = round half to even.
//
// Activations   y = rne(clip(x, 0, a) n / a) a / n,   dL/dx = g where 0 <= x <= a, else 0
// Weights       y = 2 Q((u + 1) / 2) - 1 with u = tanh x / max |tanh x| and Q(z) = rne(z n / a) a / n: the
//               gradients are those of u, through the maximum too (quant/tanh_weight.h). The maximum is that
//               of the whole tensor whatever the groups. Nothing is clipped: a != 1 is another grid.
//   binary=mean, L = 2:  y = mean |x| (x < 0 ? -1 : 1),   dL/dx = g, the mean of the whole tensor a constant
#include "quant/quantizers/dorefa.h"

#include <fmt/format.h>

#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/grouped_quantizer.h"
#include "quant/registry.h"
#include "quant/tanh_weight.h"

namespace qtrain::quant {
namespace {

struct DorefaActivationMath {
  EvenLevels q;
  QTRAIN_HOST_DEVICE float forward(float x) const { return q(clip(x, 0.0F, q.a)); }
  QTRAIN_HOST_DEVICE float backward(float x, float g) const { return x >= 0.0F && x <= q.a ? g : 0.0F; }
};

struct SignTimesMean {
  static constexpr bool straight_through = true;
  std::array<const float*, 1> constants{};
  float mean = 1;
  QTRAIN_HOST_DEVICE void prepare() { mean = *constants[0]; }
  QTRAIN_HOST_DEVICE float forward(float x) const { return x < 0.0F ? -mean : mean; }
};

// A device scalar. Terms are divided before they are summed up, so that huge ones don't overflow.
Tensor mean_magnitude(const Tensor& x) {
  Tensor mean = Tensor::empty({1}, DType::f32, x.device());
  const float share = 1.0F / static_cast<float>(x.numel());
  reduce<1, Sum>(backend(x.device()).stream(), x.numel(), ScaledMagnitude{share}, mean.data<float>(),
                 x.data<float>());
  return mean;
}

EvenLevels even_levels(std::int64_t levels, float a) {
  EvenLevels q;
  q.set_levels(static_cast<float>(levels));
  q.set_range(a);
  return q;
}

class DorefaActivation final : public GroupedQuantizer {
 public:
  explicit DorefaActivation(const QuantizerSpec& spec)
      : GroupedQuantizer("dorefa activation", spec),
        boundary_(boundary_of("dorefa activation", spec.options)) {}

 protected:
  Tensor quantize(const Tensor& x, const Grouping&) override {
    return fake_quantize<0>(op(), x, DorefaActivationMath{even_levels(levels(), boundary_)}, {});
  }
  bool quantizes_bf16() const override { return true; }

 private:
  float boundary_;
};

class DorefaWeight final : public GroupedQuantizer {
 public:
  explicit DorefaWeight(const QuantizerSpec& spec)
      : GroupedQuantizer("dorefa weight", spec),
        boundary_(boundary_of("dorefa weight", spec.options)),
        uses_mean_(spec.options.choice("binary") == "mean") {
    check_levels();
  }

  void set_bits(int bits) override {
    const int before = this->bits();
    GroupedQuantizer::set_bits(bits);
    try {
      check_levels();
    } catch (const ValueError&) {
      GroupedQuantizer::set_bits(before);
      throw;
    }
  }

 protected:
  Tensor quantize(const Tensor& x, const Grouping&) override {
    if (uses_mean_) return fake_quantize<0>(op(), x, SignTimesMean(), {}, {}, {mean_magnitude(x)});
    const TanhStatistics statistics = tanh_statistics(x);
    return record_tanh_weight(op(), x, tanh_normalized(x, statistics, even_levels(levels(), boundary_)),
                              statistics);
  }

 private:
  void check_levels() const {
    if (uses_mean_ && bits() < float_bits && levels() != 2)
      throw ValueError({.where = std::string(op()),
                        .what = "binary=mean has a level on each side of zero and no others",
                        .got = fmt::format("{} levels", levels()),
                        .expected = "2 levels",
                        .hint = "use 1 bit, or set levels=2"});
  }

  float boundary_;
  bool uses_mean_;
};

const Registration registration{{
    .name = "dorefa",
    .summary = "tanh-normalized weights, activations clipped at a fixed level",
    .source = "Zhou et al. 2016, arXiv:1606.06160; github aim-uofa/model-quantization",
    .weight_options = dorefa_weight_options(),
    .activation_options = with_rule_options({boundary_option("upper end of the levels")}, Role::activation,
                                            {"half_range", "groups", "correlate", "padding_after_quant"}),
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      if (spec.role == Role::weight) return make_dorefa_weight(spec);
      return std::make_shared<DorefaActivation>(spec);
    },
    .roles = {Role::weight, Role::activation},
    .first_layer = float_edge,
    .last_layer = float_edge,
}};

}  // namespace

std::shared_ptr<Quantizer> make_dorefa_weight(const QuantizerSpec& spec) {
  return std::make_shared<DorefaWeight>(spec);
}

std::vector<OptionSpec> dorefa_weight_options() {
  return with_rule_options(
      {boundary_option("of the grid that (u + 1) / 2 is rounded to; nothing is clipped"),
       {.name = "binary",
        .type = OptionType::choice,
        .default_value = "levels",
        .help = "what 2 levels are: -1 and 1 like any others, or the mean of |w| with w's "
                "sign",
        .choices = {"levels", "mean"}}},
      Role::weight, {"correlate"});
}

OptionSpec boundary_option(std::string help) {
  return {.name = "boundary",
          .type = OptionType::real,
          .default_value = "1",
          .help = std::move(help),
          .choices = {}};
}

float boundary_of(std::string_view op, const Options& options) {
  const double boundary = options.real("boundary");
  if (boundary >= 1e-6 && boundary <= 1e6) return static_cast<float>(boundary);
  throw ValueError({.where = std::string(op),
                    .what = "option 'boundary'",
                    .got = fmt::format("{}", boundary),
                    .expected = "1e-6 to 1e6",
                    .hint = ""});
}

}  // namespace qtrain::quant
