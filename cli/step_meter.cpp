#include "cli/step_meter.h"

#include <array>

namespace qtrain::cli {

void StepMeter::record(const Tensor& loss, const Tensor& gradient_norm, const Tensor& correct) {
  ring_.append(std::array{loss, gradient_norm, correct});
}

void StepMeter::add(std::int64_t step, std::int64_t count) {
  pending_.push_back({step, count, added_++ % patience_});
}

void StepMeter::read(RunState& state) {
  if (pending_.empty()) return;
  const std::vector<float> values = ring_.read();
  for (const Pending& p : pending_) {
    const float* const row = values.data() + p.place * columns;
    latest_ = {p.step, row[0], row[1], static_cast<double>(row[2]), p.count};
    state.loss_sum += static_cast<double>(latest_.loss) * static_cast<double>(p.count);
    state.correct += latest_.correct;
    state.images += p.count;
    if (!latest_.is_finite()) break;
  }
  pending_.clear();
}

}  // namespace qtrain::cli
