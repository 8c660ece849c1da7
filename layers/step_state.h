// What a training step does to a module tree on the host, for steps whose device work is recorded and
// replayed (engine/backend/step_graph.h): a replay runs no code of the modules.
#pragma once

#include <span>

#include "engine/optim/optimizer.h"
#include "layers/module.h"

namespace qtrain {

// Whether every module of the tree is_steady().
bool is_steady(const Module& network);

// Another number than before whenever a module of the tree was replaced, or noted a change since.
std::uint64_t latest_change(const Module& network);

// All that the modules of the tree add_settings(): part of the key under which a step is recorded. A
// bit-width can't be a number in device memory, as the learning rate is: it decides which parameters, which
// batch norm and which kernels a step uses. So every setting has a recording of its own, which is found again
// when the network switches back.
std::vector<std::int64_t> settings(const Module& network);

// What a step leaves behind on the host: moved counters of the tree (batches tracked, forwards, ...) and of
// the optimizer (steps), and higher versions of the tensors that it changed. A replay moves the counters as
// far as the recorded step did, and counts as a change of all parameters and buffers.
class StepTraces {
 public:
  // Both outlive it.
  StepTraces(Module& network, const Optimizer& optimizer) : network_(network), optimizer_(optimizer) {}

  void start();                                      // before a step that the host runs
  std::vector<std::int64_t> finish() const;          // after it: how far each counter moved
  void replay(std::span<const std::int64_t> moves);  // in place of one

 private:
  Module& network_;
  const Optimizer& optimizer_;
  std::vector<Tensor> counters_;
  std::vector<Tensor> tensors_;  // parameters and buffers, counters among them
  std::vector<std::int64_t> before_;
};

}  // namespace qtrain
