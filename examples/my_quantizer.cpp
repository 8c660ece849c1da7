// A quantizer of your own, in a shared library that qtrain loads:
//
//   g++ -shared -fPIC my_quantizer.cpp $(pkg-config --cflags --libs qtrain) -o my_quantizer.so
//   qtrain list quantizers --plugin ./my_quantizer.so
//   qtrain --plugin ./my_quantizer.so --quant minmax-pow2 --bits 4
//
// The quantizer `minmax-pow2` is symmetric and uniform, with a step that is a power of two, so that hardware
// can rescale by shifting:
//   n = 2^(b-1) - 1 levels on each side of 0
//   step = 2^ceil(log2(range / n)),  range = max|x|
//   y = step * clip(round(x / step), -n, n)
// Rounding is half to even; its gradient is taken as 1 inside the range and 0 outside (straight-through
// estimator). Weights take their range from the tensor itself. So do activations while training; a running
// average of it, kept as a buffer and saved with the network, serves evaluation.
#include "engine/core/error.h"
#include "quant/fake_quantize.h"
#include "quant/registry.h"

namespace {

using namespace qtrain;
using namespace qtrain::quant;

// Step 1: the scalar math. fake_quantize() runs it over whole tensors, forward and backward, on any device,
// so it must not branch to the host or allocate. `parameters` point to device scalars; prepare() reads them
// once.
struct MinMaxMath {
  std::array<const float*, 1> parameters{};  // the range
  float n = 1;
  float step = 1;

  QTRAIN_HOST_DEVICE void prepare() {
    const float range = clip(*parameters[0], 1e-30F, 1e30F);  // an all-zero tensor has a tiny step
    step = exp2f(ceilf(log2f(range / n)));
  }
  QTRAIN_HOST_DEVICE float forward(float x) const {
    return step * clip(round_half_to_even(x / step), -n, n);  // NaN stays NaN
  }
  // {dL/dx, {dL/drange}} for g = dL/dy. The range is measured, not learned: no gradient.
  QTRAIN_HOST_DEVICE Mapped<1> backward(float x, float g) const {
    return {fabsf(x) <= step * n ? g : 0.0F, {0.0F}};
  }
};

// Other scalar math runs over tensors the same way. Functors are named structs outside of classes and
// functions: a GPU's compiler takes no others.
struct MovedAverage {
  float keep;
  // The first batch sets the average, later ones move it. Ranges that are not finite are left out.
  QTRAIN_HOST_DEVICE float operator()(float average, float now) const {
    const float next = average > 0 ? keep * average + (1.0F - keep) * now : now;
    return fabsf(next) <= 3e38F ? next : average;
  }
};

// Step 2: the module. Learned parameters and buffers that it adds are trained, saved and loaded like any
// others.
class MinMaxQuantizer final : public Quantizer {
 public:
  explicit MinMaxQuantizer(const QuantizerSpec& spec)
      : Quantizer(spec.bits),
        momentum_(spec.role == Role::activation ? static_cast<float>(spec.options.real("momentum")) : 0),
        running_(add_buffer("running_range", spec.role == Role::activation ? Tensor::zeros({1}) : Tensor())) {
    check_bits(spec.bits);
  }

  std::string kind() const override { return "MinMaxQuantizer"; }

  void set_bits(int bits) override {
    check_bits(bits);
    Quantizer::set_bits(bits);
  }

  Tensor forward(const Tensor& x) override {
    if (bits() >= float_bits) return x;
    const bool follows = running_.defined() && is_training();
    const Tensor range = running_.defined() && !follows ? running_.clone() : largest_magnitude(x);
    if (follows) update_running(range);
    MinMaxMath math;
    math.n = static_cast<float>((std::int64_t{1} << (bits() - 1)) - 1);
    return fake_quantize<1>("minmax-pow2", x, math, {range});
  }

 private:
  static void check_bits(int bits) {
    if (bits >= 2) return;
    throw ValueError({.where = "minmax-pow2",
                      .what = "bit-width out of range",
                      .got = std::to_string(bits),
                      .expected = "2..32",
                      .hint = "one bit leaves only the level 0"});
  }

  static Tensor largest_magnitude(const Tensor& x) {
    Tensor range = Tensor::empty({1}, DType::f32, x.device());
    reduce<1, Maximum>(backend(x.device()).stream(), x.numel(), Magnitude(), range.data<float>(),
                       x.data<float>());
    return range;
  }

  void update_running(const Tensor& range) {
    float* const running = running_.data<float>();
    map(backend(range.device()).stream(), 1, MovedAverage{1.0F - momentum_}, running, running,
        range.data<float>());
  }

  float momentum_;
  const Tensor& running_;
};

// Step 3: the registration. Loading the library runs it; the name, options and help appear in `qtrain list`.
const Registration registration{{
    .name = "minmax-pow2",
    .summary = "symmetric uniform levels from the largest magnitude, with a power-of-two step",
    .source = "examples/my_quantizer.cpp",
    .weight_options = {},
    .activation_options = {{.name = "momentum",
                            .type = OptionType::real,
                            .default_value = "0.1",
                            .help = "share of the newest batch in the running range",
                            .choices = {}}},
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<MinMaxQuantizer>(spec);
    },
    .first_layer = {.quantize_input = false, .least_weight_bits = 8},
    .last_layer = {.quantize_input = true, .least_weight_bits = 8},
}};

}  // namespace
