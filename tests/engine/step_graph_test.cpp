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

TEST(StepGraph, RunsEveryStepWhereThereAreNoGraphs) {
  CpuBackend cpu;
  LoggingDevice device;
  StepGraph on_cpu(cpu, true);
  StepGraph not_wanted(device, false);
  for (StepGraph* graph : {&on_cpu, &not_wanted}) {
    EXPECT_FALSE(graph->is_on());
    int steps = 0;
    for (int i = 0; i < 10; ++i) EXPECT_EQ(graph->run({}, [&] { return ++steps > 0; }), Ran::by_host);
    EXPECT_EQ(steps, 10);
  }
  EXPECT_EQ(device.log, "");
  EXPECT_THROW(cpu.record_graph({}), DeviceError);
}

TEST(StepGraph, RecordsWhatHasRepeated) {
  LoggingDevice device;
  StepGraph graph(device, true);
  int steps = 0;
  const auto run = [&](Key key, bool repeats) {
    return graph.run(key, [&] {
      ++steps;
      device.log += graph.is_recording() ? "r" : "h";
      return repeats;
    });
  };
  EXPECT_EQ(run({1}, true), Ran::by_host);
  EXPECT_EQ(run({1}, false), Ran::by_host);  // starts the count again
  EXPECT_EQ(run({1}, true), Ran::by_host);
  EXPECT_EQ(run({1}, true), Ran::by_host);
  EXPECT_EQ(run({1}, true), Ran::recorded);
  EXPECT_EQ(run({1}, true), Ran::replayed);
  EXPECT_EQ(run({1}, true), Ran::replayed);
  EXPECT_EQ(steps, 5);
  EXPECT_EQ(device.log, "hhhh[r]LLL");
}

TEST(StepGraph, AnotherKeyRunsBesideUntilItHasRepeated) {
  LoggingDevice device;
  StepGraph graph(device, true);
  const auto run = [&](Key key) { return graph.run(key, [] { return true; }); };
  for (int i = 0; i < 3; ++i) run({1, 8});
  for (int epoch = 0; epoch < 4; ++epoch) {
    EXPECT_EQ(run({1, 5}), Ran::by_host);  // a smaller last batch
    EXPECT_EQ(run({1, 8}), Ran::replayed);
  }
  for (int i = 0; i < StepGraph::warm_up; ++i) EXPECT_EQ(run({2, 8}), Ran::by_host);
  EXPECT_EQ(device.log, "[]LLLLL");
  EXPECT_EQ(run({2, 8}), Ran::recorded);
  EXPECT_EQ(run({2, 8}), Ran::replayed);
  EXPECT_EQ(device.log, "[]LLLLL~[]LL");
  EXPECT_EQ(run({1, 8}), Ran::by_host);
}

TEST(StepGraph, WhatDoesNotRepeatIsRunOnceAndForgotten) {
  LoggingDevice device;
  StepGraph graph(device, true);
  for (int i = 0; i < 2; ++i) graph.run({}, [] { return true; });
  EXPECT_EQ(graph.run({}, [] { return false; }), Ran::recorded);
  EXPECT_EQ(device.log, "[]L~");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(graph.run({}, [] { return true; }), Ran::by_host);
  graph.run({}, [] { return true; });
  graph.run({1}, [] { return false; });  // a step of another kind that moves what both use
  EXPECT_EQ(device.log, "[]L~[]L~");
}

TEST(StepGraph, ErrorsPassAndSpoilNothing) {
  LoggingDevice device;
  StepGraph graph(device, true);
  for (int i = 0; i < 2; ++i) graph.run({}, [] { return true; });
  const auto fails = []() -> bool {
    throw NumericError({.where = "x", .what = "y", .got = "", .expected = "", .hint = ""});
  };
  EXPECT_THROW(graph.run({}, fails), NumericError);
  EXPECT_FALSE(graph.is_recording());
  EXPECT_EQ(device.log, "[!");
  EXPECT_EQ(graph.run({}, [] { return true; }), Ran::recorded);
  EXPECT_EQ(graph.run({}, fails), Ran::replayed);
}

}  // namespace
}  // namespace qtrain
