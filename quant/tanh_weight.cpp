#include "quant/tanh_weight.h"

#include "engine/autograd/tape.h"
#include "engine/kernels/scalar_functors.h"
#include "engine/kernels/update.h"

namespace qtrain::quant {
namespace {

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
    m = statistics[TanhStatistics::most_normalized];
    s = scale != nullptr ? *scale : 1.0F;
    s_over_m = m == 0 ? 0.0F : s / divisor_of(m);
  }
  QTRAIN_HOST_DEVICE Mapped<2> operator()(float w, float g) const {
    const float t = tanh_of(w);
    return {g * s_over_m * (1.0F - t * t), {g * s * t, fabsf(t) >= m ? 1.0F : 0.0F}};
  }
};

// Blocks whose own maximum comes near the tensor's.
struct NearMaximum {
  const float* statistics;
  const float* block_maxima;  // max |w| of each block
  float near = 0;
  QTRAIN_HOST_DEVICE void prepare() {
    // Farther from the maximum, |t| = m only where 1 - t^2 = 0 in float32.
    near = 0.9F * statistics[TanhStatistics::largest_weight];
  }
  QTRAIN_HOST_DEVICE bool operator()(std::int64_t block) const { return !(block_maxima[block] < near); }
};

// The second term of dL/dt, which only the elements at the maximum have.
struct MaximumTerm {
  const float* statistics;
  const float* sums;  // {sum G t, |S|}
  float m = 1;
  float term = 0;
  QTRAIN_HOST_DEVICE void prepare() {
    m = statistics[TanhStatistics::most_normalized];
    term = m == 0 ? 0.0F : sums[0] / divisor_of(m) / divisor_of(m) / sums[1];
  }
  QTRAIN_HOST_DEVICE void operator()(float& grad, float w) const {
    const float t = tanh_of(w);
    if (fabsf(t) >= m) grad -= sign_of(t) * term * (1.0F - t * t);
  }
};

// Its output is not made again in backward, as those of cheaper quantizers are: tanh is dear, and weights are
// few beside the elements of a batch.
struct TanhWeightNode final : Node {
  std::string_view op;
  SavedTensor w{"w"};
  SavedTensor statistics{"statistics"};
  SavedTensor block_maxima{"block maxima"};
  SavedTensor scale{"scale"};
  std::string_view name() const override { return op; }
  std::vector<SavedTensor*> saved() override { return {&w, &statistics, &block_maxima, &scale}; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
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
    update_where(stream, g.numel(), NearMaximum{stats.data<float>(), maxima.data<float>()},
                 MaximumTerm{stats.data<float>(), sums.data<float>()}, grad_w.data<float>(),
                 static_cast<const float*>(weight.data<float>()));
    return {grad_w};
  }
};

struct Tanh {
  QTRAIN_HOST_DEVICE float operator()(float v) const { return tanh_of(v); }
};

}  // namespace

// tanh is monotonic, so m = tanh(max |w|).
TanhStatistics tanh_statistics(const Tensor& w) {
  const Stream stream = backend(w.device()).stream();
  const Tensor whole = Tensor::empty({2}, DType::f32, w.device());
  const Tensor maxima = Tensor::empty({reduction_blocks(w.numel())}, DType::f32, w.device());
  float* const s = whole.data<float>();
  reduce_each_block<1, Maximum>(stream, w.numel(), Magnitude{}, maxima.data<float>(), w.data<float>());
  reduce<1, Maximum>(stream, maxima.numel(), Magnitude{}, s + TanhStatistics::largest_weight,
                     maxima.data<float>());
  map(stream, 1, Tanh{}, s + TanhStatistics::most_normalized, s + TanhStatistics::largest_weight);
  return {whole, maxima};
}

Tensor record_tanh_weight(std::string_view op, const Tensor& w, const Tensor& y,
                          const TanhStatistics& statistics, const Tensor& s) {
  return Tape::record<TanhWeightNode>(op, {w}, y, [&](TanhWeightNode& node) {
    node.op = op;
    node.w.save(w);
    node.statistics.save(statistics.whole);
    node.block_maxima.save(statistics.block_maxima);
    if (s.defined()) node.scale.save(s);
  });
}

}  // namespace qtrain::quant
