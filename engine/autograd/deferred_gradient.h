// A gradient whose elements are computed when they are asked for, or never, if the backward that receives it
// can do without (engine/ops/batch_norm_fusion.h). What else arrives for the same tensor is kept beside it.
#pragma once

#include "engine/core/deferred.h"

namespace qtrain {

class DeferredGradient : public Deferred {
 public:
  void add(Tensor gradient);

 protected:
  // The sum of what add() got; undefined where nothing came. The owed gradient includes it.
  const Tensor& addend() const { return addend_; }

 private:
  Tensor addend_;
};

// The maker of a pending gradient; nullptr for every other tensor.
std::shared_ptr<DeferredGradient> deferred_gradient(const Tensor& gradient);

// into += gradient, without touching elements that somebody else may see. A pending one stays pending.
void accumulate(Tensor& into, Tensor gradient);

}  // namespace qtrain
