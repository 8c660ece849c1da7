#include "engine/autograd/deferred_gradient.h"

#include "engine/ops/arithmetic.h"

namespace qtrain {

void DeferredGradient::add(Tensor gradient) {
  accumulate(addend_, std::move(gradient));
}

std::shared_ptr<DeferredGradient> deferred_gradient(const Tensor& gradient) {
  return std::dynamic_pointer_cast<DeferredGradient>(gradient.pending());
}

void accumulate(Tensor& into, Tensor gradient) {
  if (!into.defined()) {
    into = std::move(gradient);
    return;
  }
  if (deferred_gradient(into) == nullptr && deferred_gradient(gradient) != nullptr) std::swap(into, gradient);
  if (into.is_sole_owner()) {
    if (const auto deferred = deferred_gradient(into))
      deferred->add(std::move(gradient));
    else
      add_in_place(into, gradient);
  } else if (gradient.is_sole_owner()) {
    add_in_place(gradient, into);
    into = std::move(gradient);
  } else {
    Tensor sum = into.clone();
    add_in_place(sum, gradient);
    into = std::move(sum);
  }
}

}  // namespace qtrain
