#include "engine/backend/step_graph.h"

#include <gtest/gtest.h>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/core/error.h"

namespace qtrain {
namespace {

// A device that keeps a log of what would happen to graphs.
class LoggingDevice final : public CpuBackend {
 public:
  std::string log;

  bool has_graphs() const override { return true; }
  std::unique_ptr<GraphRecording> record_graph(const Stream&) override {
    log += "[";
    return std::make_unique<Recording>(log);
  }

 private:
  struct Graph final : DeviceGraph {
    explicit Graph(std::string& all) : log(all) {}
    ~Graph() override { log += "~"; }
    void launch(const Stream&) override { log += "L"; }
    std::string& log;
  };
  struct Recording final : GraphRecording {
    explicit Recording(std::string& all) : log(all) {}
    ~Recording() override {
      if (!finished) log += "!";
    }
    std::unique_ptr<DeviceGraph> finish() override {
      finished = true;
      log += "]";
      return std::make_unique<Graph>(log);
    }
    std::string& log;
    bool finished = false;
  };
};

using Key = StepGraph::Key;
using Ran = StepGraph::Ran;
using Report = StepGraph::Report;

Report repeats() {
  return {};
}
Report does_not_repeat() {
  return {.repeats = false};
}

TEST(StepGraph, RunsEveryStepWhereThereAreNoGraphs) {
  CpuBackend cpu;
  LoggingDevice device;
  StepGraph on_cpu(cpu, true);
  StepGraph not_wanted(device, false);
  for (StepGraph* graph : {&on_cpu, &not_wanted}) {
    EXPECT_FALSE(graph->is_on());
    int steps = 0;
    const auto step = [&] {
      ++steps;
      return Report();
    };
    for (int i = 0; i < 10; ++i) EXPECT_EQ(graph->run({}, step), Ran::by_host);
    EXPECT_EQ(steps, 10);
  }
  EXPECT_EQ(device.log, "");
  EXPECT_THROW(cpu.record_graph({}), DeviceError);
}

TEST(StepGraph, RecordsWhatHasRepeated) {
  LoggingDevice device;
  StepGraph graph(device, true);
  int steps = 0;
  const auto run = [&](bool repeats) {
    return graph.run({1}, [&] {
      ++steps;
      device.log += graph.is_recording() ? "r" : "h";
      return Report{.repeats = repeats};
    });
  };
  EXPECT_EQ(run(true), Ran::by_host);
  EXPECT_EQ(run(false), Ran::by_host);  // starts the count again
  EXPECT_EQ(run(true), Ran::by_host);
  EXPECT_EQ(run(true), Ran::by_host);
  EXPECT_EQ(run(true), Ran::recorded);
  EXPECT_EQ(run(true), Ran::replayed);
  EXPECT_EQ(run(true), Ran::replayed);
  EXPECT_EQ(steps, 5);
  EXPECT_EQ(device.log, "hhhh[r]LLL");
}

// A replay moves what the host counts as far as the recorded step did: it must be what every step does.
TEST(StepGraph, RecordsWhatLeavesTheSameTraces) {
  LoggingDevice device;
  StepGraph graph(device, true);
  const auto run = [&](const Key& key, std::int64_t trace) {
    return graph.run(key, [&] { return Report{true, {trace}}; });
  };
  for (const std::int64_t trace : {5, 7, 7}) {
    EXPECT_EQ(run({1}, trace), Ran::by_host);
    EXPECT_EQ(run({2}, 1), Ran::by_host);
  }
  EXPECT_EQ(run({1}, 7), Ran::by_host) << "the second like the one before";
  EXPECT_EQ(run({2}, 1), Ran::recorded);
  EXPECT_EQ(run({1}, 6), Ran::recorded);
  EXPECT_EQ(run({1}, 6), Ran::by_host) << "what was recorded had done something else";
  EXPECT_EQ(run({2}, 0), Ran::replayed);
  EXPECT_EQ(graph.traces(), StepGraph::Traces{1});
  EXPECT_EQ(device.log, "[]L[]L~L");
}

TEST(StepGraph, EveryKeyHasItsRecording) {
  LoggingDevice device;
  StepGraph graph(device, true);
  for (int round = 0; round < 8; ++round)
    for (const std::int64_t bits : {8, 6, 5, 4}) {
      const Ran expected = round < StepGraph::warm_up    ? Ran::by_host
                           : round == StepGraph::warm_up ? Ran::recorded
                                                         : Ran::replayed;
      EXPECT_EQ(graph.run({bits}, repeats), expected) << bits << " bits, round " << round;
    }
  EXPECT_EQ(device.log, "[]L[]L[]L[]LLLLLLLLLLLLLLLLLLLLL");
  graph.forget();
  EXPECT_EQ(device.log, "[]L[]L[]L[]LLLLLLLLLLLLLLLLLLLLL~~~~");
  EXPECT_EQ(graph.run({8}, repeats), Ran::by_host) << "as one that hasn't been seen";
}

// Tensors that are made then may lie where recordings have theirs.
TEST(StepGraph, AKeysFirstStepMayKeepTensors) {
  LoggingDevice device;
  StepGraph graph(device, true);
  const auto run = [&](const Key& key) { return graph.run(key, repeats); };
  for (int i = 0; i < 4; ++i) run({1, 8});
  EXPECT_EQ(device.log, "[]LL");
  EXPECT_EQ(graph.run({1, 5},  // a smaller last batch
                      [&] {
                        EXPECT_EQ(device.log, "[]LL~");
                        return Report();
                      }),
            Ran::by_host);
  EXPECT_EQ(run({1, 8}), Ran::recorded) << "it has been warm for long";
  EXPECT_EQ(run({1, 5}), Ran::by_host);
  EXPECT_EQ(run({1, 8}), Ran::replayed);
  EXPECT_EQ(device.log, "[]LL~[]LL");
}

TEST(StepGraph, TheKeyUsedLongestAgoGoesFirst) {
  LoggingDevice device;
  StepGraph graph(device, true);
  const auto run = [&](std::size_t key) { return graph.run({static_cast<std::int64_t>(key)}, repeats); };
  for (int round = 0; round <= StepGraph::warm_up; ++round)
    for (std::size_t key = 0; key < StepGraph::most_keys; ++key) run(key);
  EXPECT_EQ(run(0), Ran::replayed);
  EXPECT_EQ(run(StepGraph::most_keys), Ran::by_host) << "takes the place of 1";
  EXPECT_EQ(run(0), Ran::recorded);
  EXPECT_EQ(run(2), Ran::recorded);
  EXPECT_EQ(run(1), Ran::by_host) << "takes the place of 3";
  EXPECT_EQ(run(0), Ran::recorded);
  EXPECT_EQ(run(3), Ran::by_host);
}

TEST(StepGraph, WhatDoesNotRepeatIsRunOnceAndForgotten) {
  LoggingDevice device;
  StepGraph graph(device, true);
  for (int i = 0; i < 2; ++i) graph.run({}, repeats);
  EXPECT_EQ(graph.run({}, does_not_repeat), Ran::recorded);
  EXPECT_EQ(device.log, "[]L~");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(graph.run({}, repeats), Ran::by_host);
  graph.run({1}, repeats);
  graph.run({}, repeats);
  EXPECT_EQ(device.log, "[]L~[]L");
  graph.run({1}, does_not_repeat);  // a step of another kind that moves what both use
  EXPECT_EQ(device.log, "[]L~[]L~");
  EXPECT_EQ(graph.run({}, repeats), Ran::recorded);
}

TEST(StepGraph, ErrorsPassAndSpoilNothing) {
  LoggingDevice device;
  StepGraph graph(device, true);
  for (int i = 0; i < 2; ++i) graph.run({}, repeats);
  const auto fails = []() -> Report {
    throw NumericError({.where = "x", .what = "y", .got = "", .expected = "", .hint = ""});
  };
  EXPECT_THROW(graph.run({}, fails), NumericError);
  EXPECT_FALSE(graph.is_recording());
  EXPECT_EQ(device.log, "[!");
  EXPECT_EQ(graph.run({}, repeats), Ran::recorded);
  EXPECT_EQ(graph.run({}, fails), Ran::replayed);
}

}  // namespace
}  // namespace qtrain
