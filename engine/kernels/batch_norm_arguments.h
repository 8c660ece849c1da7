// What the kernels of batch norm are given, and its scalar math, which every device compiles.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "engine/core/host_device.h"
#include "engine/core/tensor.h"

namespace qtrain {

// The rows of `coefficients`, f32 [4, C]: all that is needed of a channel.
enum class Coefficient : std::int64_t { mean, invstd, slope, beta };
inline constexpr std::int64_t coefficient_rows = 4;

inline const float* coefficient(const Tensor& coefficients, Coefficient row) {
  return coefficients.data<float>() + static_cast<std::int64_t>(row) * coefficients.dim(1);
}

// What y is made of.
struct BatchNormOutput {
  Tensor x;         // [N, C, H, W] or [N, C]
  Tensor residual;  // like x, or undefined
  Tensor coefficients;
  bool relu = false;
};

// Where the gradients go; undefined where not wanted.
struct BatchNormGradients {
  Tensor x;      // may be over BatchNormBackward::grad, if that has no border
  Tensor gamma;  // [C]
  Tensor beta;   // [C]
  Tensor residual;
};

struct BatchNormBackward {
  BatchNormOutput of;
  Tensor y;     // where it is stored already: read in place of of.residual; else undefined
  Tensor grad;  // dL/dq
  Tensor
      addend;  // added to what math makes of grad: the part of dL/dy that comes from elsewhere; or undefined
  bool training = true;  // the statistics depend on x
  BatchNormGradients gradients;
};

// Where the sums of K terms go, each on its own; nullptr where not wanted.
template <int K>
using BatchNormSums = std::array<float*, static_cast<std::size_t>(K)>;

// In place of math: nothing follows y, and BatchNormBackward::grad is dL/dy.
struct Identity {};

// Forward and backward share this expression, so that the backward finds the very sign that the forward's
// ReLU saw. V: float, or a vector of them.
template <class V>
QTRAIN_HOST_DEVICE V normalize(V x, V mean, V slope, V beta) {
  return (x - mean) * slope + beta;
}
QTRAIN_HOST_DEVICE float rectify(float y) {
  return y < 0 ? 0.0F : y;  // NaN passes
}

// Number, mean and squared deviations of some values of a channel; add() merges those of others (Chan, Golub,
// LeVeque 1979).
struct Moments {
  double n = 0;
  double mean = 0;
  double squares = 0;

  QTRAIN_HOST_DEVICE void add(const Moments& other) {
    if (other.n == 0) return;
    const double share = other.n / (n + other.n);
    const double delta = other.mean - mean;
    mean += delta * share;
    squares += other.squares + delta * delta * (n * share);
    n += other.n;
  }
};

// From the sums of d and of d^2, d = value - shift: what rounding did to the shift as a mean is taken back.
QTRAIN_HOST_DEVICE Moments moments_around(float shift, double n, float sum, float squares) {
  const double rest = static_cast<double>(sum) * (1 / n);
  return {n, static_cast<double>(shift) + rest,
          static_cast<double>(squares) - static_cast<double>(sum) * rest};
}

// A channel's column of the coefficients, and its running statistics.
struct BatchNormChannel {
  float* coefficients;
  std::int64_t channels;
  const float* gamma;
  const float* beta;

  QTRAIN_HOST_DEVICE void write(std::int64_t c, float mean, float invstd) const {
    set(c, Coefficient::mean, mean);
    set(c, Coefficient::invstd, invstd);
    set(c, Coefficient::slope, gamma[c] * invstd);
    set(c, Coefficient::beta, beta[c]);
  }

 private:
  QTRAIN_HOST_DEVICE void set(std::int64_t c, Coefficient row, float value) const {
    coefficients[static_cast<std::int64_t>(row) * channels + c] = value;
  }
};

// What training makes of a channel's moments.
struct BatchNormTraining {
  BatchNormChannel channel;
  float epsilon;
  float momentum;
  float* running_mean;      // or nullptr
  float* running_variance;  // or nullptr

  QTRAIN_HOST_DEVICE void operator()(std::int64_t c, const Moments& m) const {
    channel.write(c, static_cast<float>(m.mean),
                  static_cast<float>(1.0 / sqrt(m.squares / m.n + static_cast<double>(epsilon))));
    if (running_mean != nullptr) follow(running_mean[c], m.mean);
    if (running_variance != nullptr) follow(running_variance[c], m.squares / (m.n - 1));
  }

 private:
  QTRAIN_HOST_DEVICE void follow(float& running, double batch) const {
    running = (1 - momentum) * running + momentum * static_cast<float>(batch);
  }
};

// From running statistics.
struct BatchNormEvaluation {
  BatchNormChannel channel;
  const float* mean;
  const float* variance;
  float epsilon;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t c) const {
    channel.write(c, mean[c], 1.0F / sqrtf(variance[c] + epsilon));
  }
};

// The gradients of a channel's gamma and beta, and what dL/dx subtracts: slope (g - mean_g - (x - mean)
// along_x).
struct BatchNormGradientMerge {
  const float* invstd;
  double rows;
  bool training;
  float* grad_gamma;  // or nullptr
  float* grad_beta;   // or nullptr
  float* mean_g;
  float* along_x;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t c, double sum_g, double sum_gx) const {
    const auto scale = static_cast<double>(invstd[c]);
    if (grad_beta != nullptr) grad_beta[c] = static_cast<float>(sum_g);
    if (grad_gamma != nullptr) grad_gamma[c] = static_cast<float>(sum_gx * scale);
    mean_g[c] = training ? static_cast<float>(sum_g / rows) : 0.0F;
    along_x[c] = training ? static_cast<float>(sum_gx * scale * scale / rows) : 0.0F;
  }
};

}  // namespace qtrain
