// Weights of scale-adjusted training:
//   t = tanh(w), m = max |t|, u = t / m, v = 2 Q((u + 1) / 2) - 1, y = s v
// The largest |t| is part of the function: with G = s dL/dy and S = {i : |t_i| = m},
//   dL/dt_i = G_i / m - [i in S] sign(t_i) (sum_j G_j t_j) / (m^2 |S|),   dL/dw = dL/dt (1 - t^2).
// s scales v to standard deviation N (1/sqrt(fan-out) or that of w); it is a constant for the gradient.
// An all-zero tensor has u = 0 and gradient 0; a tensor without spread has s = 1. Infinite weights count as t
// = +-1; a NaN makes the whole result NaN.
#include "quant/quantizers/sat_weight.h"

#include <array>
#include <cmath>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/check.h"
#include "quant/unit_quantizer.h"

namespace qtrain::quant {
namespace {

enum class Rescale { none, constant, stddev };
constexpr std::int64_t most_normalized = 1;  // index into `statistics`: m
constexpr std::int64_t largest_weight = 0;   // index into `statistics`: max |w|

// v from w. statistics = {max |w|, m} on the device.
template <Scheme scheme, bool rounds>
struct Normalize {
  const float* statistics;
  UnitQuantizer<scheme> q{};
  Divisor by_m;
  float lift = 1;  // keeps a tiny m within the divisor's range
  QTRAIN_HOST_DEVICE void prepare() {
    const float m = statistics[most_normalized];
    lift = m == 0 ? 0.0F : (m < 1e-25F ? 0x1p100F : 1.0F);
    by_m.set(m == 0 ? 1.0F : m * lift);
  }
  QTRAIN_HOST_DEVICE float operator()(float w) const {
    const float u = by_m.divide(tanh_of(w) * lift);
    if constexpr (!rounds) return u;
    return 2.0F * q((u + 1.0F) / 2.0F) - 1.0F;
  }
};

// Gradients grow as 1/m. Below this m, which only a broken tensor has, they grow no more, and stay finite.
QTRAIN_HOST_DEVICE float divisor_of(float m) {
  return m < 1e-30F ? 1e-30F : m;
}

struct GradientTerms {
  const float* statistics;
  const float* scale;  // s, or nullptr for 1
  float m = 1;
  float s_over_m = 1;
  float s = 1;
  QTRAIN_HOST_DEVICE void prepare() {
    m = statistics[most_normalized];
    s = scale != nullptr ? *scale : 1.0F;
    s_over_m = m == 0 ? 0.0F : s / divisor_of(m);
  }
  QTRAIN_HOST_DEVICE Mapped<2> operator()(float w, float g) const {
    const float t = tanh_of(w);
    return {g * s_over_m * (1.0F - t * t), {g * s * t, fabsf(t) >= m ? 1.0F : 0.0F}};
  }
};

// The second term of dL/dt, which only the elements at the maximum have: each call looks at one block of
// elements, and only where the block's own maximum comes near the tensor's.
struct MaximumTerm {
  const float* statistics;
  const float* block_maxima;  // max |w| of each block
  const float* sums;          // {sum G t, |S|}
  const float* w;
  float* grad_w;
  std::int64_t n;
  float m = 1;
  float near = 0;
  float term = 0;
  QTRAIN_HOST_DEVICE void prepare() {
    m = statistics[most_normalized];
    // Farther from the maximum, |t| = m only where 1 - t^2 = 0 in float32.
    near = 0.9F * statistics[largest_weight];
    term = m == 0 ? 0.0F : sums[0] / divisor_of(m) / divisor_of(m) / sums[1];
  }
  QTRAIN_HOST_DEVICE void operator()(std::int64_t block) const {
    if (block_maxima[block] < near) return;
    const std::int64_t begin = block * reduction_block;
    const std::int64_t end = begin + reduction_block < n ? begin + reduction_block : n;
    for (std::int64_t i = begin; i < end; ++i) {
      const float t = tanh_of(w[i]);
      if (fabsf(t) >= m) grad_w[i] -= sign_of(t) * term * (1.0F - t * t);
    }
  }
};

struct SatWeightNode final : Node {
  SavedTensor w{"w"};
  SavedTensor statistics{"statistics"};
  SavedTensor block_maxima{"block maxima"};
  SavedTensor scale{"scale"};
  std::string_view name() const override { return "sat weight"; }
  std::vector<SavedTensor*> saved() override { return {&w, &statistics, &block_maxima, &scale}; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    if (!statistics.defined()) {  // y = s w
      Tensor grad = g.is_sole_owner() ? g : g.clone();
      if (scale.defined()) multiply_in_place(grad, scale.get());
      return {grad};
    }
    const Tensor weight = w.get();
    const Tensor stats = statistics.get();
    const Tensor s = scale.defined() ? scale.get() : Tensor();
    const Stream stream = backend(g.device()).stream();
    Tensor grad_w = reuse_or_allocate(g);
    Tensor sums = Tensor::empty({2}, DType::f32, g.device());
    map_reduce<2>(stream, g.numel(),
                  GradientTerms{stats.data<float>(), s.defined() ? s.data<float>() : nullptr},
                  sums.data<float>(), grad_w.data<float>(), weight.data<float>(), g.data<float>());
    const Tensor maxima = block_maxima.get();
    for_each(stream, maxima.numel(),
             MaximumTerm{stats.data<float>(), maxima.data<float>(), sums.data<float>(), weight.data<float>(),
                         grad_w.data<float>(), g.numel()},
             1);
    return {grad_w};
  }
};

struct Magnitude {
  QTRAIN_HOST_DEVICE Terms<1> operator()(float v) const { return {fabsf(v)}; }
};

struct Statistics {
  Tensor whole;         // {max |w|, m}
  Tensor block_maxima;  // max |w| of each block
};

// tanh is monotonic, so m = tanh(max |w|).
Statistics weight_statistics(const Tensor& w) {
  const Stream stream = backend(w.device()).stream();
  const Tensor whole = Tensor::empty({2}, DType::f32, w.device());
  const Tensor maxima = Tensor::empty({reduction_blocks(w.numel())}, DType::f32, w.device());
  float* s = whole.data<float>();
  reduce_each_block<1, Maximum>(stream, w.numel(), Magnitude{}, maxima.data<float>(), w.data<float>());
  reduce<1, Maximum>(stream, maxima.numel(), Magnitude{}, s, maxima.data<float>());
  map(
      stream, 1, [] QTRAIN_LAMBDA(float v) { return tanh_of(v); }, s + most_normalized, s + largest_weight);
  return {whole, maxima};
}

struct SquaredDeviation {
  const float* mean;
  float value = 0;
  QTRAIN_HOST_DEVICE void prepare() { value = *mean; }
  QTRAIN_HOST_DEVICE Terms<1> operator()(float x) const { return {(x - value) * (x - value)}; }
};

// The sample standard deviation (divisor n - 1) as a device scalar; 0 for one element.
Tensor standard_deviation(const Tensor& x) {
  const Stream stream = backend(x.device()).stream();
  const std::int64_t n = x.numel();
  Tensor mean = Tensor::empty({1}, DType::f32, x.device());
  Tensor deviation = Tensor::empty({1}, DType::f32, x.device());
  float* mu = mean.data<float>();
  float* sd = deviation.data<float>();
  reduce<1, Sum>(
      stream, n, [] QTRAIN_LAMBDA(float v) { return Terms<1>{v}; }, mu, x.data<float>());
  map(
      stream, 1, [n] QTRAIN_LAMBDA(float total) { return total / static_cast<float>(n); }, mu, mu);
  reduce<1, Sum>(stream, n, SquaredDeviation{mu}, sd, x.data<float>());
  map(
      stream, 1,
      [n] QTRAIN_LAMBDA(float total) { return n > 1 ? sqrtf(total / static_cast<float>(n - 1)) : 0.0F; }, sd,
      sd);
  return deviation;
}

class SatWeight final : public Quantizer {
 public:
  explicit SatWeight(const QuantizerSpec& spec)
      : Quantizer(spec.bits),
        scheme_(parse_scheme(spec.options.choice("scheme"))),
        clamp_(spec.options.flag("clamp")),
        layer_(spec.layer) {
    std::string rescale = spec.options.choice("rescale");
    if (layer_ == LayerKind::convolution && spec.options.choice("rescale_conv") != "auto")
      rescale = spec.options.choice("rescale_conv");
    if (rescale == "auto") rescale = layer_ == LayerKind::linear ? "constant" : "none";
    rescale_ =
        rescale == "none" ? Rescale::none : (rescale == "constant" ? Rescale::constant : Rescale::stddev);
  }

  std::string kind() const override { return "SatWeight"; }
  std::string describe() const override { return "sat weight, " + std::to_string(bits()) + " bits"; }

  Tensor forward(const Tensor& w) override {
    check::tensor("sat weight", "w", w);
    check::sizes(w.numel() > 0, "sat weight", "an empty tensor", w.str(), "at least one weight");
    const bool rounds = bits() < float_bits;
    Tensor y;
    Statistics statistics;
    if (rounds || clamp_) {
      statistics = weight_statistics(w);
      y = Tensor::empty_like(w);
      const auto run = [&](auto math) {
        map(backend(w.device()).stream(), w.numel(), math, y.data<float>(), w.data<float>());
      };
      with_scheme(scheme_, [&](auto scheme) {
        if (rounds)
          run(Normalize<scheme.value, true>{statistics.whole.data<float>(),
                                            UnitQuantizer<scheme.value>(bits())});
        else
          run(Normalize<scheme.value, false>{statistics.whole.data<float>()});
      });
    } else {
      y = w.clone();
    }
    // A linear layer in evaluation keeps v and divides its bias by s instead.
    const bool applies = rescale_ != Rescale::none && (layer_ == LayerKind::convolution || is_training());
    scale_ = rescale_ == Rescale::none ? Tensor() : scale_of(w, y);
    if (applies) multiply_in_place(y, scale_);
    return Tape::record<SatWeightNode>("sat weight", {w}, y, [&](SatWeightNode& node) {
      node.w.save(w);
      node.statistics.save(statistics.whole);
      node.block_maxima.save(statistics.block_maxima);
      if (applies) node.scale.save(scale_);
    });
  }

  Tensor layer_bias(const Tensor& bias) override {
    const bool divides = rescale_ != Rescale::none && layer_ == LayerKind::linear && !is_training();
    return divides && bias.defined() ? divide(bias, scale_) : bias;
  }

 private:
  // s = N / std(v); 1 where v has no spread.
  Tensor scale_of(const Tensor& w, const Tensor& v) const {
    Tensor s = standard_deviation(v);
    const Stream stream = backend(w.device()).stream();
    const auto ratio = [] QTRAIN_LAMBDA(float n, float spread) { return spread > 0 ? n / spread : 1.0F; };
    if (rescale_ == Rescale::stddev) {
      const Tensor n = standard_deviation(w);
      map(stream, 1, ratio, s.data<float>(), n.data<float>(), s.data<float>());
    } else {
      // Fan-out: out_channels * kh * kw, or out_features.
      const std::int64_t fan_out = w.dim(0) * (w.rank() == 4 ? w.dim(2) * w.dim(3) : 1);
      const float n = 1.0F / std::sqrt(static_cast<float>(fan_out));
      map(
          stream, 1, [n, ratio] QTRAIN_LAMBDA(float spread) { return ratio(n, spread); }, s.data<float>(),
          s.data<float>());
    }
    return s;
  }

  Scheme scheme_;
  bool clamp_;
  LayerKind layer_;
  Rescale rescale_ = Rescale::none;
  Tensor scale_;  // of the last forward
};

}  // namespace

std::shared_ptr<Quantizer> make_sat_weight(const QuantizerSpec& spec) {
  return std::make_shared<SatWeight>(spec);
}

std::vector<OptionSpec> sat_weight_options() {
  const std::vector<std::string> rescales{"auto", "none", "constant", "stddev"};
  return {scheme_option("modified"),
          {.name = "clamp",
           .type = OptionType::boolean,
           .default_value = "true",
           .help = "at 32 bits: tanh(w)/max|tanh(w)| instead of w",
           .choices = {}},
          {.name = "rescale",
           .type = OptionType::choice,
           .default_value = "auto",
           .help = "scale to a standard deviation of 1/sqrt(fan-out) or w's own; auto: constant for linear "
                   "layers, none for convolutions",
           .choices = rescales},
          {.name = "rescale_conv",
           .type = OptionType::choice,
           .default_value = "auto",
           .help = "the same for convolutions only; auto: as rescale",
           .choices = rescales}};
}

}  // namespace qtrain::quant
