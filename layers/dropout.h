// Dropout (Srivastava et al. 2014): in training each element is 0 with probability p, else x / (1 - p).
#pragma once

#include "engine/ops/dropout.h"
#include "layers/module.h"

namespace qtrain {

// The mask is a pure function of (seed, layer, step): the step is a counter that checkpoints keep, so a
// resumed run draws the masks that the uninterrupted one would have drawn. reset_parameters() of init.h gives
// every dropout of a network the run's seed and its own layer number.
class Dropout final : public Module {
 public:
  explicit Dropout(float probability = 0.5F);  // ValueError unless 0 <= p <= 1

  void set_stream(std::uint64_t seed, std::uint64_t layer) { stream_ = {seed, layer}; }
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "Dropout"; }
  std::string describe() const override;

 private:
  Tensor step_on(Device device);

  float probability_;
  DropoutStream stream_;
  const Tensor& step_;
  Tensor device_step_;  // the same number on a GPU, where steps count it on, recorded ones too
  std::uint64_t change_of_device_step_ = 0;  // last_change() when it was put there
};

}  // namespace qtrain
