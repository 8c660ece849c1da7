#include "cli/step_meter.h"

namespace qtrain::cli {

void StepMeter::read(RunState& state) {
  for (const Pending& p : pending_) {
    latest_ = {p.step, p.loss.item(), p.gradient_norm.item(), static_cast<double>(p.correct.item()), p.count};
    state.loss_sum += static_cast<double>(latest_.loss) * static_cast<double>(p.count);
    state.correct += latest_.correct;
    state.images += p.count;
    if (!latest_.is_finite()) break;
  }
  pending_.clear();
}

}  // namespace qtrain::cli
