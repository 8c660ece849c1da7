// pact: activations with a learned clipping level (Choi et al. 2018, arXiv:1805.06085) as in QTool
// (aim-uofa/model-quantization). n = L - 1, a = clip, z = max(x, 0):
//   y = rne(min(z, a) n / a) a / n
//   dL/dx = g where x >= 0 and x < a, else 0;   dL/da = sum of g where z >= a
// A clip below 1e-8 counts as 1e-8 and keeps its gradient, so it finds its way back; NaN passes. Weights:
// dorefa's.
#include <array>

#include "quant/fake_quantize.h"
#include "quant/grouped_quantizer.h"
#include "quant/quantizers/dorefa.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr float smallest_clip = 1e-8F;
constexpr float largest_clip = 1e25F;

struct PactMath {
  std::array<const float*, 1> parameters{};
  EvenLevels q{};
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    q.set_range(clip(parameters[0][group], smallest_clip, largest_clip));
  }
  QTRAIN_HOST_DEVICE float forward(float x) const { return q(clip(x, 0.0F, q.a)); }
  QTRAIN_HOST_DEVICE Mapped<1> backward(float x, float g) const {
    return {x >= 0.0F && x < q.a ? g : 0.0F, {x >= q.a ? g : 0.0F}};
  }
};

class PactActivation final : public GroupedQuantizer {
 public:
  explicit PactActivation(const QuantizerSpec& spec)
      : GroupedQuantizer("pact activation", spec),
        clip_(add_group_parameter("clip", boundary_of("pact activation", spec.options))) {}

 protected:
  Tensor quantize(const Tensor& x, const Grouping& grouping) override {
    PactMath math;
    math.q.set_levels(static_cast<float>(levels()));
    return fake_quantize<1>(op(), x, math, {clip_}, grouping);
  }
  bool quantizes_bf16() const override { return true; }
  void warm_up(const Tensor& x, const Grouping& grouping, std::int64_t t) override {
    follow_maximum(clip_, x, grouping, t);
  }

 private:
  const Tensor& clip_;
};

const Registration registration{{
    .name = "pact",
    .summary = "activations clipped at a learned level, dorefa's weights",
    .source = "Choi et al. 2018, arXiv:1805.06085; github aim-uofa/model-quantization",
    .weight_options = dorefa_weight_options(),
    .activation_options = with_rule_options({boundary_option("initial clipping level")}, Role::activation,
                                            {"half_range", "padding_after_quant"}),
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      if (spec.role == Role::weight) return make_dorefa_weight(spec);
      return std::make_shared<PactActivation>(spec);
    },
    .roles = {Role::weight, Role::activation},
    .first_layer = float_edge,
    .last_layer = float_edge,
}};

}  // namespace
}  // namespace qtrain::quant
