#include "engine/backend/step_graph.h"

namespace qtrain {

StepGraph::Ran StepGraph::run(const Key& key, const std::function<bool()>& step) {
  if (!on_) {
    step();
    return Ran::by_host;
  }
  if (graph_ != nullptr && key == graph_key_) {
    repeats_ = 0;  // of another key
    graph_->launch(backend_.stream());
    return Ran::replayed;
  }
  if (key != last_key_) repeats_ = 0;
  last_key_ = key;
  if (repeats_ >= warm_up) {
    record(step);
    return Ran::recorded;
  }
  if (step()) {
    ++repeats_;
  } else {
    repeats_ = 0;
    graph_.reset();  // what it relies on may have moved
  }
  return Ran::by_host;
}

void StepGraph::record(const std::function<bool()>& step) {
  graph_.reset();
  const Stream stream = backend_.stream();
  struct Flag {
    bool& value;
    explicit Flag(bool& v) : value(v) { value = true; }
    ~Flag() { value = false; }
  };
  const std::unique_ptr<GraphRecording> recording = backend_.record_graph(stream);
  bool repeats = false;
  {
    const Flag flag(recording_);
    repeats = step();
  }
  std::unique_ptr<DeviceGraph> graph = recording->finish();
  graph->launch(stream);
  repeats_ = 0;
  if (!repeats) return;
  graph_ = std::move(graph);
  graph_key_ = last_key_;
}

}  // namespace qtrain
