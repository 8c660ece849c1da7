// A step that is repeated many times, such as a training step, recorded once and then queued with one call.
// Worth it on a device where queueing hundreds of short kernels takes the host longer than the device needs
// to run them. On the CPU, and where it isn't wanted, every step simply runs.
//
// What can be recorded is a step that queues the same work on the same addresses every time. What differs
// from step to step lies in device memory, and is put there before run(): the batch, the learning rate. What
// decides which work is queued is part of the step's key: the batch's shape, the bit-widths. There is one
// recording for each key. What the step does on the host besides queueing happens only when the host runs it;
// run() tells.
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
  using Traces = std::vector<std::int64_t>;
  enum class Ran {
    by_host,   // in full
    recorded,  // the host's part in full, the device's as a graph
    replayed   // the device's part only
  };
  // What a step says about itself when the host has run it.
  struct Report {
    bool repeats = true;  // the next one of this key queues the same work, and this one keeps no new tensor
    Traces traces = {};  // what it did on the host, in numbers; the next one will do the same if this one did
                         // what the last one had done
  };
  // Steps of a key that repeat before one is recorded: libraries choose their kernels, and memory is taken.
  static constexpr int warm_up = 2;
  // Keys that are remembered; the least recently used one goes first. A handful of bit-widths, each with
  // whole batches and an epoch's smaller last one, fits. A recording takes some MiB outside of tensors:
  // hundreds of kernels with their arguments.
  static constexpr std::size_t most_keys = 16;

  StepGraph(Backend& backend, bool wanted) : backend_(backend), on_(wanted && backend.has_graphs()) {}

  // False: every step runs by the host, and keys aren't looked at.
  bool is_on() const { return on_; }
  // True inside of a step that is recorded and hasn't run: its results aren't there yet.
  bool is_recording() const { return recording_; }

  // Runs the step, or its recording once `warm_up` steps of this key in a row have repeated. What step()
  // throws passes through; what was being recorded is forgotten then.
  //
  // The recordings share their memory: it is what the recorded steps took for their tensors, common memory
  // that is free for others in between, and every replay of any of them writes it again. So while there is a
  // recording, a tensor that was made in the step that was recorded first or after it keeps nothing from one
  // run() to the next. Who makes a tensor to keep it, an optimizer its state, say, does so the first time. So
  // the first step of a key, and one that doesn't repeat, drop all recordings, and may keep; the other keys
  // are recorded anew when they come again.
  Ran run(const Key& key, const std::function<Report()>& step);
  // What the step that run() has just replayed would have done on the host.
  const Traces& traces() const { return keys_.front().traces; }

  // For changes that no key shows: every key starts again, as one that hasn't been seen.
  void forget() { keys_.clear(); }

 private:
  struct Known {
    Key key;
    Traces traces{};  // of the last step that the host ran
    int repeats = 0;  // steps that did, in a row
    std::unique_ptr<DeviceGraph> graph{};
  };
  Known& find(const Key& key);
  Report record(const std::function<Report()>& step, std::unique_ptr<DeviceGraph>& graph);
  void drop_recordings();

  Backend& backend_;
  bool on_;
  bool recording_ = false;
  std::vector<Known> keys_;  // the last one used comes first
};

}  // namespace qtrain
