// Dropout (Srivastava et al. 2014): in training each element is 0 with probability p, else x / (1 - p).
#pragma once

#include "layers/module.h"

namespace qtrain {

// The mask is a pure function of (seed, layer, step): the step is a counter that checkpoints keep, so a
// resumed run draws the masks that the uninterrupted one would have drawn. reset_parameters() of init.h gives
// every dropout of a network the run's seed and its own layer number.
class Dropout final : public Module {
 public:
  explicit Dropout(float probability = 0.5F);  // ValueError unless 0 <= p <= 1

  void set_stream(std::uint64_t seed, std::uint64_t layer) {
    seed_ = seed;
    layer_ = layer;
  }
  Tensor forward(const Tensor& x) override;
  // The host draws the mask, another one in every step.
  bool is_steady() const override { return probability_ == 0; }
  std::string kind() const override { return "Dropout"; }
  std::string describe() const override;

 private:
  float probability_;
  std::uint64_t seed_ = 0;
  std::uint64_t layer_ = 0;
  const Tensor& step_;
};

}  // namespace qtrain
