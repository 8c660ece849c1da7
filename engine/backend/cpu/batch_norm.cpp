// Batch normalization over channels-last data: x is a matrix of `rows` = N*H*W rows and C columns.
// Statistics are exact to float32 whatever the mean: each block of rows gives its mean and its sum of squared
// deviations (both passes in cache), and blocks are merged in a fixed order in double (Chan, Golub, LeVeque
// 1979). The deviations' own sum takes back what rounding did to the first pass's mean (the corrected
// two-pass algorithm). Training costs two passes over memory forward (statistics, apply) and two backward
// (reductions, apply), with the residual and the ReLU in the same passes.
#include <cmath>
#include <vector>

#include "engine/backend/cpu/columns.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/kernels/parallel.h"

namespace qtrain {
namespace {

using simd::Vec;

// One block of rows is small enough to stay in the first-level cache between its passes.
std::int64_t rows_per_block(std::int64_t channels) {
  return std::max<std::int64_t>(4, 8192 / channels);
}

struct Matrix {
  std::int64_t rows;
  std::int64_t channels;
};

Matrix matrix_of(const Tensor& x) {
  return {x.numel() / std::max<std::int64_t>(x.dim(1), 1), x.dim(1)};
}

// y = (x - mean) * slope + beta, slope = gamma * invstd. Forward and backward share this expression, so that
// the backward finds the very sign that the forward's ReLU saw.
template <class V>
inline V normalize(V x, V mean, V slope, V beta) {
  return (x - mean) * slope + beta;
}

void apply(const BatchNormArguments& a, const Tensor& y) {
  const Matrix m = matrix_of(a.x);
  const Scratch<float> slope({}, m.channels);
  for (std::int64_t c = 0; c < m.channels; ++c)
    slope.data()[c] = a.gamma.data<float>()[c] * a.invstd.data<float>()[c];
  const float* x = a.x.data<float>();
  const float* residual = a.residual.defined() ? a.residual.data<float>() : nullptr;
  const float* mean = a.mean.data<float>();
  const float* beta = a.beta.data<float>();
  const float* s = slope.data();
  float* out = y.data<float>();
  const auto run = [&](auto with_residual, auto with_relu) {
    parallel_for(m.rows, std::max<std::int64_t>(1, map_grain / m.channels),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     const std::int64_t row = r * m.channels;
#pragma omp simd
                     for (std::int64_t c = 0; c < m.channels; ++c) {
                       float v = normalize(x[row + c], mean[c], s[c], beta[c]);
                       if constexpr (decltype(with_residual)::value) v += residual[row + c];
                       if constexpr (decltype(with_relu)::value) v = v < 0 ? 0.0F : v;  // NaN passes
                       out[row + c] = v;
                     }
                   }
                 });
  };
  using Yes = std::true_type;
  using No = std::false_type;
  if (residual != nullptr) {
    a.relu ? run(Yes{}, Yes{}) : run(Yes{}, No{});
  } else {
    a.relu ? run(No{}, Yes{}) : run(No{}, No{});
  }
}

// Per-channel gradient of the normalization's output behind the ReLU, at one element.
struct Masked {
  const float* x;
  const float* y;  // only with a residual
  const float* grad;
  const float* mean;
  const float* slope;
  const float* beta;
  bool relu;

  template <class V, class Load>
  V operator()(Load&& load, std::int64_t i, V x_value, V mean_value, std::int64_t c) const {
    const V g = load(grad + i);
    if (!relu) return g;
    const V out =
        y != nullptr ? load(y + i) : normalize(x_value, mean_value, load(slope + c), load(beta + c));
    return select_positive(out, g);
  }
};

}  // namespace

void CpuBackend::batch_norm_training(const Stream& stream, const BatchNormArguments& a, float epsilon,
                                     float momentum, const Tensor& running_mean,
                                     const Tensor& running_variance, const Tensor& y) {
  const Matrix m = matrix_of(a.x);
  const std::int64_t block = rows_per_block(m.channels);
  const std::int64_t blocks = (m.rows + block - 1) / block;
  const Scratch<float> block_mean(stream, blocks * m.channels);
  const Scratch<float> block_m2(stream, blocks * m.channels);
  const Scratch<float> block_rest(stream, blocks * m.channels);
  const float* x = a.x.data<float>();

  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = b * block;
      const std::int64_t count = std::min(block, m.rows - first);
      const float* rows = x + first * m.channels;
      float* mean = block_mean.data() + b * m.channels;
      float* m2 = block_m2.data() + b * m.channels;
      float* rest = block_rest.data() + b * m.channels;
      reduce_columns<1>(count, m.channels, {mean}, [rows](auto load, std::int64_t i, std::int64_t) {
        return std::array{load(rows + i)};
      });
      for (std::int64_t c = 0; c < m.channels; ++c) mean[c] /= static_cast<float>(count);
      reduce_columns<2>(count, m.channels, {m2, rest},
                        [rows, mean](auto load, std::int64_t i, std::int64_t c) {
                          const auto d = load(rows + i) - load(mean + c);
                          return std::array{d * d, d};
                        });
    }
  });

  float* mean = a.mean.data<float>();
  float* invstd = a.invstd.data<float>();
  parallel_for(m.channels, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      double n = 0;
      double mu = 0;
      double m2 = 0;
      for (std::int64_t b = 0; b < blocks; ++b) {
        const auto count = static_cast<double>(std::min(block, m.rows - b * block));
        const std::int64_t at = b * m.channels + c;
        const auto rest = static_cast<double>(block_rest.data()[at]);
        const double delta = static_cast<double>(block_mean.data()[at]) + rest / count - mu;
        const double total = n + count;
        mu += delta * count / total;
        m2 += static_cast<double>(block_m2.data()[at]) - rest * rest / count +
              delta * delta * n * count / total;
        n = total;
      }
      mean[c] = static_cast<float>(mu);
      invstd[c] = static_cast<float>(1.0 / std::sqrt(m2 / n + static_cast<double>(epsilon)));
      if (running_mean.defined()) {
        float& r = running_mean.data<float>()[c];
        r = (1 - momentum) * r + momentum * static_cast<float>(mu);
      }
      if (running_variance.defined()) {
        float& r = running_variance.data<float>()[c];
        r = (1 - momentum) * r + momentum * static_cast<float>(m2 / (n - 1));
      }
    }
  });
  apply(a, y);
}

void CpuBackend::batch_norm_evaluation(const Stream&, const BatchNormArguments& a, const Tensor& y) {
  apply(a, y);
}

void CpuBackend::batch_norm_backward(const Stream& stream, const BatchNormArguments& a, const Tensor& y,
                                     const Tensor& grad_y, bool training, const BatchNormGradients& grads) {
  const Matrix m = matrix_of(a.x);
  const std::int64_t channels = m.channels;
  const float* x = a.x.data<float>();
  const float* mean = a.mean.data<float>();
  const Scratch<float> slope(stream, channels);
  for (std::int64_t c = 0; c < channels; ++c)
    slope.data()[c] = a.gamma.data<float>()[c] * a.invstd.data<float>()[c];
  const float* s = slope.data();
  Masked masked{x,
                a.residual.defined() ? y.data<float>() : nullptr,
                grad_y.data<float>(),
                mean,
                s,
                a.beta.data<float>(),
                a.relu};

  // Reductions: sum g and sum g (x - mean) per channel; the masked gradient is the residual's.
  const std::int64_t block = rows_per_block(channels);
  const std::int64_t blocks = (m.rows + block - 1) / block;
  const Scratch<float> partial(stream, blocks * 2 * channels);
  float* grad_residual = grads.residual.defined() ? grads.residual.data<float>() : nullptr;
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = b * block;
      float* sums = partial.data() + b * 2 * channels;
      reduce_columns<2>(std::min(block, m.rows - first), channels, {sums, sums + channels},
                        [&, first](auto load, std::int64_t i, std::int64_t c) {
                          const std::int64_t at = first * channels + i;
                          const auto xv = load(x + at);
                          const auto mu = load(mean + c);
                          const auto g = masked(load, at, xv, mu, c);
                          if (grad_residual != nullptr) load.store(grad_residual + at, g);
                          return std::array{g, g * (xv - mu)};
                        });
    }
  });

  // grad_x = slope * (g - mean(g) - (x - mean) * invstd^2 * mean(g (x - mean)))
  const Scratch<float> mean_g(stream, channels);
  const Scratch<float> along_x(stream, channels);
  float* k1 = mean_g.data();
  float* k2 = along_x.data();
  const auto n = static_cast<double>(m.rows);
  for (std::int64_t c = 0; c < channels; ++c) {
    double sum_g = 0;
    double sum_gx = 0;
    for (std::int64_t b = 0; b < blocks; ++b) {
      sum_g += static_cast<double>(partial.data()[b * 2 * channels + c]);
      sum_gx += static_cast<double>(partial.data()[(b * 2 + 1) * channels + c]);
    }
    const auto invstd = static_cast<double>(a.invstd.data<float>()[c]);
    if (grads.beta.defined()) grads.beta.data<float>()[c] = static_cast<float>(sum_g);
    if (grads.gamma.defined()) grads.gamma.data<float>()[c] = static_cast<float>(sum_gx * invstd);
    k1[c] = training ? static_cast<float>(sum_g / n) : 0.0F;
    k2[c] = training ? static_cast<float>(sum_gx * invstd * invstd / n) : 0.0F;
  }
  if (!grads.x.defined()) return;
  if (grad_residual != nullptr) masked = {x, nullptr, grad_residual, mean, s, masked.beta, false};
  float* grad_x = grads.x.data<float>();
  parallel_for(m.rows, std::max<std::int64_t>(1, map_grain / channels),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r)
                   for_columns(channels, [&](auto load, std::int64_t c) {
                     const std::int64_t i = r * channels + c;
                     const auto xv = load(x + i);
                     const auto mu = load(mean + c);
                     const auto g = masked(load, i, xv, mu, c);
                     load.store(grad_x + i, load(s + c) * (g - load(k1 + c) - (xv - mu) * load(k2 + c)));
                   });
               });
}

}  // namespace qtrain
