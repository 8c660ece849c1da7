// What a batch norm and the op behind it need of each other to share passes over memory.
//
// Forward: with BatchNormOptions::fusion, y is pending (engine/core/deferred.h). Whoever computes q = f(y)
// elementwise, also with a border of f(0) around it, asks fusable_batch_norm(y) and runs batch_norm_map() of
// engine/kernels/batch_norm.h, which reads the batch norm's input. y itself takes memory and a pass only if
// somebody else touches it.
//
// Backward: that op may return a pending dL/dy, made by a DeferredBatchNormGradient. Batch norm's backward
// hands it its own reductions, to be run in the same pass.
#pragma once

#include "engine/autograd/deferred_gradient.h"
#include "engine/kernels/batch_norm.h"
#include "engine/ops/batch_norm.h"

namespace qtrain {

// The y of a batch norm, not computed yet.
class DeferredBatchNorm final : public Deferred {
 public:
  // `fusion` is told whether y is needed beside what is computed from x.
  static Tensor output(const BatchNormOutput& of, std::shared_ptr<BatchNormFusion> fusion);

  void compute() override;

  // For a pass that computes something else from the same input. ValueError where the input has been changed.
  const BatchNormOutput& of() const;
  // Called once by whoever is about to run such a pass for the first time: y itself where it is known to be
  // needed, to be written in the same pass; else undefined.
  Tensor output_in_same_pass();
  // True after that call: y is there or it takes a pass of its own.
  bool is_fused() const { return fused_; }

 private:
  BatchNormOutput of_;
  std::uint64_t x_version_ = 0;
  std::uint64_t residual_version_ = 0;
  std::shared_ptr<BatchNormFusion> fusion_;
  Owed y_;
  bool fused_ = false;
};

// The batch norm whose output y is, where that is pending; else nullptr.
std::shared_ptr<DeferredBatchNorm> fusable_batch_norm(const Tensor& y);

// dL/dy, where dL/dq is there and q = f(y).
class DeferredBatchNormGradient : public DeferredGradient {
 public:
  // Where dL/dx may be written.
  virtual Tensor place_for_grad_x() const = 0;
  // batch_norm_backward() of engine/kernels/batch_norm.h with the math of f; fills in grad and addend. The
  // last thing that it is used for.
  virtual void batch_norm_backward(BatchNormBackward arguments) = 0;
};

}  // namespace qtrain
