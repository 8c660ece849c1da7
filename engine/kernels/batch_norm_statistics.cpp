// Statistics are exact to float32 whatever the mean: each block of rows gives its mean and its sum of squared
// deviations (both passes in cache), and blocks are merged in a fixed order in double (Chan, Golub, LeVeque
// 1979). The deviations' own sum takes back what rounding did to the first pass's mean (the corrected
// two-pass algorithm).
#include <cmath>

#include "engine/kernels/batch_norm.h"
#include "engine/kernels/columns.h"

namespace qtrain {
namespace {

// One block of rows is small enough to stay in the first-level cache between its passes.
std::int64_t rows_per_block(std::int64_t channels) {
  return std::max<std::int64_t>(4, 8192 / channels);
}

// A channel's column of the coefficients.
struct Column {
  float* place;
  std::int64_t channels;
  void write(double mean, double invstd, float gamma, float beta) const {
    const auto rounded = static_cast<float>(invstd);
    set(Coefficient::mean, static_cast<float>(mean));
    set(Coefficient::invstd, rounded);
    set(Coefficient::slope, gamma * rounded);
    set(Coefficient::beta, beta);
  }
  void set(Coefficient row, float value) const { place[static_cast<std::int64_t>(row) * channels] = value; }
};

// The mean and the squared deviations of each block, [blocks][C].
struct BlockStatistics {
  Scratch<float> mean, squares, rest;
  BlockStatistics(const Stream& stream, std::int64_t n)
      : mean(stream, n), squares(stream, n), rest(stream, n) {}
};

template <class T>
void measure_blocks(const T* x, std::int64_t rows, std::int64_t channels, const BlockStatistics& statistics) {
  const std::int64_t block = rows_per_block(channels);
  parallel_for((rows + block - 1) / block, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = b * block;
      const std::int64_t count = std::min(block, rows - first);
      const T* const from = x + first * channels;
      float* mean = statistics.mean.data() + b * channels;
      float* squares = statistics.squares.data() + b * channels;
      float* rest = statistics.rest.data() + b * channels;
      reduce_columns<1>(count, channels, {mean}, [from](auto load, std::int64_t i, std::int64_t) {
        return std::array{load(from + i)};
      });
      for (std::int64_t c = 0; c < channels; ++c) mean[c] /= static_cast<float>(count);
      reduce_columns<2>(count, channels, {squares, rest},
                        [from, mean](auto load, std::int64_t i, std::int64_t c) {
                          const auto d = load(from + i) - load(mean + c);
                          return std::array{d * d, d};
                        });
    }
  });
}

void follow(const Tensor& running, std::int64_t c, float momentum, double batch) {
  if (!running.defined()) return;
  float& r = running.data<float>()[c];
  r = (1 - momentum) * r + momentum * static_cast<float>(batch);
}

}  // namespace

void batch_norm_statistics(const Stream& stream, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                           float epsilon, float momentum, const Tensor& running_mean,
                           const Tensor& running_variance, const Tensor& coefficients) {
  const std::int64_t channels = x.dim(1);
  const std::int64_t rows = x.numel() / channels;
  const std::int64_t block = rows_per_block(channels);
  const std::int64_t blocks = (rows + block - 1) / block;
  const BlockStatistics of_blocks(stream, blocks * channels);
  const Tensor wide = x.dtype() == DType::f32 ? x : widened(stream, x);
  measure_blocks(wide.data<float>(), rows, channels, of_blocks);

  const float* const gammas = gamma.data<float>();
  const float* const betas = beta.data<float>();
  float* const to = coefficients.data<float>();
  parallel_for(channels, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      double n = 0;
      double mean = 0;
      double squares = 0;
      for (std::int64_t b = 0; b < blocks; ++b) {
        const auto count = static_cast<double>(std::min(block, rows - b * block));
        const std::int64_t at = b * channels + c;
        const auto rest = static_cast<double>(of_blocks.rest.data()[at]);
        const double delta = static_cast<double>(of_blocks.mean.data()[at]) + rest / count - mean;
        const double total = n + count;
        mean += delta * count / total;
        squares += static_cast<double>(of_blocks.squares.data()[at]) - rest * rest / count +
                   delta * delta * n * count / total;
        n = total;
      }
      Column{to + c, channels}.write(mean, 1.0 / std::sqrt(squares / n + static_cast<double>(epsilon)),
                                     gammas[c], betas[c]);
      follow(running_mean, c, momentum, mean);
      follow(running_variance, c, momentum, squares / (n - 1));
    }
  });
}

void batch_norm_coefficients(const Stream& /*stream*/, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float epsilon,
                             const Tensor& coefficients) {
  const std::int64_t channels = gamma.numel();
  for (std::int64_t c = 0; c < channels; ++c) {
    const float invstd = 1.0F / std::sqrt(variance.data<float>()[c] + epsilon);
    Column{coefficients.data<float>() + c, channels}.write(static_cast<double>(mean.data<float>()[c]),
                                                           static_cast<double>(invstd),
                                                           gamma.data<float>()[c], beta.data<float>()[c]);
  }
}

}  // namespace qtrain
