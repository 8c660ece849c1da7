// Batch normalization (Ioffe and Szegedy 2015) over N, H, W per channel, optionally with a residual added and
// a ReLU applied in the same pass over memory:
//   y = act(gamma * (x - mean) / sqrt(variance + epsilon) + beta + residual)
#pragma once

#include <memory>

#include "engine/core/tensor.h"

namespace qtrain {

// What is known about the use of a layer's output from the steps before.
struct BatchNormFusion {
  bool output_needed = false;  // by others than the op that is fused with it
};

struct BatchNormOptions {
  float epsilon = 1e-5F;
  float momentum = 0.1F;  // running = (1 - momentum) * running + momentum * batch
  bool relu = false;
  // Where set, y is computed when it is first asked for, so that the op behind can be fused with it
  // (batch_norm_fusion.h). The values are the same.
  std::shared_ptr<BatchNormFusion> fusion = nullptr;
};

// The learned and the running tensors, all [C]. Running statistics are updated in place by training; they may
// be undefined there.
struct BatchNormState {
  Tensor gamma;
  Tensor beta;
  Tensor running_mean;
  Tensor running_variance;
};

// Normalizes with the batch's mean and biased variance. x is [N, C, H, W] or [N, C] with more than one
// element per channel; `residual` has x's shape or is undefined.
Tensor batch_norm_training(const Tensor& x, const BatchNormState& state, const BatchNormOptions& options = {},
                           const Tensor& residual = {});

// Normalizes with the running statistics.
Tensor batch_norm_evaluation(const Tensor& x, const BatchNormState& state,
                             const BatchNormOptions& options = {}, const Tensor& residual = {});

}  // namespace qtrain
