#include "engine/backend/step_graph.h"

#include <algorithm>

namespace qtrain {

StepGraph::Ran StepGraph::run(const Key& key, const std::function<Report()>& step) {
  if (!on_) {
    step();
    return Ran::by_host;
  }
  Known& known = find(key);
  if (known.graph != nullptr) {
    known.graph->launch(backend_.stream());
    return Ran::replayed;
  }
  const bool records = known.repeats >= warm_up;
  std::unique_ptr<DeviceGraph> graph;
  Report report = records ? record(step, graph) : step();
  const bool repeats = report.repeats && report.traces == known.traces;
  known.repeats = repeats ? known.repeats + 1 : 0;
  known.traces = std::move(report.traces);
  if (repeats) known.graph = std::move(graph);
  if (!report.repeats) drop_recordings();  // what they rely on may have moved
  return records ? Ran::recorded : Ran::by_host;
}

// The key's entry, moved to the front.
StepGraph::Known& StepGraph::find(const Key& key) {
  auto found = std::ranges::find(keys_, key, &Known::key);
  if (found == keys_.end()) {
    drop_recordings();
    if (keys_.size() == most_keys) keys_.pop_back();
    keys_.push_back({.key = key});
    found = std::prev(keys_.end());
  }
  std::rotate(keys_.begin(), found, std::next(found));
  return keys_.front();
}

void StepGraph::drop_recordings() {
  for (Known& known : keys_) known.graph.reset();
}

StepGraph::Report StepGraph::record(const std::function<Report()>& step,
                                    std::unique_ptr<DeviceGraph>& graph) {
  const Stream stream = backend_.stream();
  struct Flag {
    bool& value;
    explicit Flag(bool& v) : value(v) { value = true; }
    ~Flag() { value = false; }
  };
  const std::unique_ptr<GraphRecording> recording = backend_.record_graph(stream);
  Report report;
  {
    const Flag flag(recording_);
    report = step();
  }
  graph = recording->finish();
  graph->launch(stream);
  return report;
}

}  // namespace qtrain
