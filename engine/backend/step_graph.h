// A step that is repeated many times, such as a training step, recorded once and then queued with one call.
// Worth it on a device where queueing hundreds of short kernels takes the host longer than the device needs
// to run them. On the CPU, and where it isn't wanted, every step simply runs.
//
// What can be recorded is a step that queues the same work on the same addresses every time. What differs
// from step to step lies in device memory, and is put there before run(): the batch, the learning rate. What
// the step does on the host besides queueing happens only when the host runs it; run() tells.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"

namespace qtrain {

class StepGraph {
 public:
  // Steps of the same key are of the same shapes and settings.
  using Key = std::vector<std::int64_t>;
  enum class Ran {
    by_host,   // in full
    recorded,  // the host's part in full, the device's as a graph
    replayed   // the device's part only
  };
  // Steps that repeat before one is recorded: libraries choose their kernels, and memory is taken.
  static constexpr int warm_up = 2;

  StepGraph(Backend& backend, bool wanted) : backend_(backend), on_(wanted && backend.has_graphs()) {}

  // False: every step runs by the host, and keys aren't looked at.
  bool is_on() const { return on_; }
  // True inside of a step that is recorded and hasn't run: its results aren't there yet.
  bool is_recording() const { return recording_; }

  // Runs the step or its recording. step() returns whether another one with this key will do exactly the same
  // work; the device's part doesn't count as repeatable before it has said so `warm_up` times in a row. A
  // graph serves its key until that many steps of another one have repeated, so that one batch of another
  // size doesn't cost it. What step() throws passes through; a recording is forgotten then.
  //
  // While there is a graph, every replay writes the memory again that the recorded step had taken for its
  // tensors; it is free for others in between. So a tensor that was made in the recorded step or after it
  // keeps nothing from one run() to the next. A step by the host that doesn't repeat drops the graph, and may
  // keep.
  Ran run(const Key& key, const std::function<bool()>& step);

 private:
  void record(const std::function<bool()>& step);

  Backend& backend_;
  bool on_;
  bool recording_ = false;
  std::unique_ptr<DeviceGraph> graph_;
  Key graph_key_;
  Key last_key_;     // of the last step that the host ran
  int repeats_ = 0;  // steps with that key that repeat, in a row
};

}  // namespace qtrain
