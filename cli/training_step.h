// One training step, in two parts: what the host does anew in every step, and what the device does, which is
// the same in every step and on a GPU recorded once (engine/backend/step_graph.h).
#pragma once

#include <functional>

#include "cli/session.h"
#include "cli/step_meter.h"
#include "engine/backend/step_graph.h"
#include "layers/step_state.h"

namespace qtrain::cli {

// Cross entropy with label smoothing; with both labels of each image where the batch is mixed.
Tensor classification_loss(const Tensor& logits, const DeviceBatch& batch, const TrainOptions& options);

class TrainingStep {
 public:
  // All of them outlive it. `backend`: of the session's device.
  TrainingStep(Session& session, StepMeter& meter, Backend& backend);

  // Step number `step` from 0. `look` is called when the results are queued and the host may read them:
  // between the norm of the gradients and the update, or after a step that was recorded or replayed, as a
  // whole.
  void run(const data::Batch& batch, std::int64_t step, const std::function<void()>& look);
  // The batch of the last step.
  DeviceBatch input() const { return input_.normalized(session_.data.normalization); }

 private:
  StepGraph::Ran run_graph(const std::function<void()>& look);
  StepGraph::Report device_part(const std::function<void()>& look);
  void forward_and_backward();

  Session& session_;
  StepMeter& meter_;
  StepGraph graph_;
  StepTraces traces_;
  std::uint64_t change_ = 0;  // the network's latest
  InputBuffer input_;
  std::vector<Tensor> parameters_;  // all, for clipping
};

}  // namespace qtrain::cli
