// What a training step does to a module tree on the host, for steps whose device work is recorded and
// replayed (engine/backend/step_graph.h): a replay runs no code of the modules.
#pragma once

#include "layers/module.h"

namespace qtrain {

// Whether every module of the tree is_steady().
bool is_steady(const Module& network);

// Another number than before whenever a module of the tree was replaced, or noted a change since.
std::uint64_t latest_change(const Module& network);

// What a step leaves behind on the host: moved counters of the tree (batches tracked, forwards, ...) and
// higher versions of the tensors that it changed. A replay moves each counter as far as the last step did
// that the host ran, and counts as a change of all parameters and buffers.
class StepTraces {
 public:
  explicit StepTraces(Module& network) : network_(network) {}

  void start();   // before a step that the host runs
  bool finish();  // after it; whether all counters moved as they did in the step before
  void replay();  // in place of one

 private:
  Module& network_;
  std::vector<Tensor> counters_;
  std::vector<Tensor> tensors_;  // parameters and buffers, counters among them
  std::vector<std::int64_t> before_;
  std::vector<std::int64_t> moves_;
};

}  // namespace qtrain
