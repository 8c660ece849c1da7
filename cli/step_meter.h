// Loss, gradient norm and top-1 of training steps. The results stay on the device until they are needed: this
// is the one place where training reads device values on the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "cli/checkpoint.h"
#include "engine/ops/result_ring.h"

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
  StepMeter(std::size_t patience, Device device)
      : patience_(patience), ring_(static_cast<std::int64_t>(patience), columns, device) {}

  // A step's results, on the device: queued, and so part of a recorded step.
  void record(const Tensor& loss, const Tensor& gradient_norm, const Tensor& correct);
  // The same step on the host: its number, and the images of its batch.
  void add(std::int64_t step, std::int64_t count);
  // Must be answered by a read() once the step that was added last has been queued.
  bool due() const { return pending_.size() >= patience_; }

  // Adds what is pending to the sums of the epoch, in order of the steps. Stops behind the first step whose
  // loss or gradient isn't finite.
  void read(RunState& state);
  const StepResult& latest() const { return latest_; }  // the last one read

 private:
  struct Pending {
    std::int64_t step;
    std::int64_t count;
    std::size_t place;  // in the ring
  };
  static constexpr std::int64_t columns = 3;

  std::size_t patience_;
  ResultRing ring_;
  std::size_t added_ = 0;
  std::vector<Pending> pending_;
  StepResult latest_;
};

}  // namespace qtrain::cli
