// Work put off until its results are asked for. A tensor made by Tensor::deferred() has no memory yet:
// whoever first touches its elements (raw(), data(), values(), copies, through any view) makes it get some
// and runs the work. Until then somebody who knows the work (Tensor::pending()) may do it in a better way: a
// quantizer behind a batch norm computes its result straight from the batch norm's input.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

class Deferred {
 public:
  Deferred() = default;
  Deferred(const Deferred&) = delete;
  Deferred& operator=(const Deferred&) = delete;
  virtual ~Deferred() = default;

  // Computes every result that is still owed.
  virtual void compute() = 0;
};

// A result that a Deferred owes. It doesn't keep the tensor alive: nobody may want it any more.
class Owed {
 public:
  Owed() = default;
  explicit Owed(const Tensor& result);

  // The tensor, with memory and no longer pending, for the Deferred to write; undefined where it has been
  // handed out before or nobody holds it any more.
  Tensor receive() const;

 private:
  std::weak_ptr<Storage> storage_;
  Shape shape_;
  DType dtype_ = DType::f32;
};

}  // namespace qtrain
