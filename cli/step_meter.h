// Loss, gradient norm and top-1 of training steps. The results stay on the device until they are needed: this
// is the one place where training reads device values on the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "cli/checkpoint.h"
#include "engine/core/tensor.h"

namespace qtrain::cli {

struct StepResult {
  std::int64_t step = 0;
  float loss = 0;
  float gradient_norm = 0;
  double correct = 0;
  std::int64_t count = 0;

  double top1() const { return correct / static_cast<double>(count); }
  bool is_finite() const { return std::isfinite(loss) && std::isfinite(gradient_norm); }
};

class StepMeter {
 public:
  // `patience`: how many steps may wait unread; 1 on the CPU, where reading costs nothing.
  explicit StepMeter(std::size_t patience) : patience_(patience) {}

  void add(std::int64_t step, const Tensor& loss, const Tensor& gradient_norm, const Tensor& correct,
           std::int64_t count) {
    pending_.push_back({step, loss.detach(), gradient_norm, correct, count});
  }
  bool due() const { return pending_.size() >= patience_; }

  // Adds what is pending to the sums of the epoch, in order of the steps. Stops behind the first step whose
  // loss or gradient isn't finite.
  void read(RunState& state);
  const StepResult& latest() const { return latest_; }  // the last one read

 private:
  struct Pending {
    std::int64_t step;
    Tensor loss;
    Tensor gradient_norm;
    Tensor correct;
    std::int64_t count;
  };
  std::size_t patience_;
  std::vector<Pending> pending_;
  StepResult latest_;
};

}  // namespace qtrain::cli
