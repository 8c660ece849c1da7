#include "layers/dropout.h"

#include <fmt/format.h>

#include "engine/core/error.h"

namespace qtrain {

Dropout::Dropout(float probability) : probability_(probability), step_(add_counter("step")) {
  if (!(probability >= 0 && probability <= 1))
    throw ValueError({.where = "Dropout",
                      .what = "not a probability",
                      .got = fmt::format("{}", probability),
                      .expected = "0 to 1",
                      .hint = ""});
}

Tensor Dropout::forward(const Tensor& x) {
  if (!is_training() || probability_ == 0) return x;
  Tensor y = dropout(x, probability_, stream_, step_on(x.device()));
  ++*step_.data<std::int64_t>();
  return y;
}

// The number of this step, for forward and backward, on x's device.
Tensor Dropout::step_on(Device device) {
  if (device == step_.device()) return step_.clone();
  if (!device_step_.defined() || device_step_.device() != device)
    device_step_ = step_.to(device);
  else if (change_of_device_step_ != last_change())  // loaded, say
    device_step_.copy_from(step_);
  change_of_device_step_ = last_change();
  Tensor this_step = device_step_.clone();
  advance_step(device_step_);
  return this_step;
}

std::string Dropout::describe() const {
  return fmt::format("{}(p {})", kind(), probability_);
}

}  // namespace qtrain
