// Normalization layers, which can add a residual and apply a ReLU in the same pass over memory.
#pragma once

#include "engine/ops/batch_norm.h"
#include "layers/module.h"

namespace qtrain {

// What the blocks of a network ask for, so that other normalizations (switchable ones, for example) can stand
// in.
class Normalization : public Module {
 public:
  static constexpr std::string_view interface_name = "Normalization";

  // y = act(normalized x + residual), act = ReLU if `relu`; `residual` has x's shape or is undefined.
  virtual Tensor forward(const Tensor& x, bool relu, const Tensor& residual) = 0;
  Tensor forward(const Tensor& x, bool relu) { return forward(x, relu, Tensor{}); }
  Tensor forward(const Tensor& x) final { return forward(x, false, Tensor{}); }

  virtual std::int64_t channels() const = 0;
};

// Parameters weight (gamma), bias (beta); buffers running_mean, running_var, all [C], and
// num_batches_tracked. Starts as the identity of evaluation: 1, 0, 0, 1.
class BatchNorm2d : public Normalization {
 public:
  // running = (1 - momentum) * running + momentum * batch. ValueError for arguments out of range.
  explicit BatchNorm2d(std::int64_t channels, float epsilon = 1e-5F, float momentum = 0.1F);

  // One that starts with copies of the source's tensors. A shared weight or bias that is defined is used in
  // place of its own: a parameter of the parent, whose reference follows to() and outlives this module.
  BatchNorm2d(const BatchNorm2d& source, const Tensor& shared_weight, const Tensor& shared_bias);

  const Tensor& weight() const { return weight_; }
  const Tensor& bias() const { return bias_; }
  const Tensor& running_mean() const { return running_mean_; }
  const Tensor& running_variance() const { return running_variance_; }
  float epsilon() const { return epsilon_; }
  float momentum() const { return momentum_; }

  // Lets the op that follows be fused with this one: the output is computed when it is asked for. The values
  // are the same. Off at first.
  void set_fusion(bool on);
  bool fuses() const { return fusion_ != nullptr; }

  using Normalization::forward;
  Tensor forward(const Tensor& x, bool relu, const Tensor& residual) override;
  std::int64_t channels() const override { return weight_.dim(0); }
  std::string kind() const override { return "BatchNorm2d"; }
  std::string describe() const override;

 private:
  const Tensor& own_or_shared(const Tensor& shared, const char* name, const Tensor& source);

  float epsilon_;
  float momentum_;
  const Tensor& weight_;
  const Tensor& bias_;
  const Tensor& running_mean_;
  const Tensor& running_variance_;
  const Tensor& batches_tracked_;
  std::shared_ptr<BatchNormFusion> fusion_;
};

}  // namespace qtrain
