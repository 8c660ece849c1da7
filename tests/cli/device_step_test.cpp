// A training run on a device never waits for the host or makes it wait, and whether its steps are queued one
// by one or recorded and replayed, it computes the same.
#include <gtest/gtest.h>

#include "engine/core/host_read.h"
#include "quant/wrap.h"
#include "tests/cli/training_run.h"
#include "tests/devices.h"
#include "tests/engine/support.h"
#include "zoo/registry.h"

namespace qtrain::cli {
namespace {

using testing_support::device_test_name;
using testing_support::identical;
using testing_support::Images;
using testing_support::make_switchable;
using testing_support::on_devices;
using testing_support::OnDevice;
using testing_support::set_bits;
using testing_support::TrainingRun;

struct Recipe {
  std::string name;
  std::string quantizer;
  std::string optimizer = "sgd";
  double clip = 0;
  DType dtype = DType::f32;
  std::vector<int> widths = {};  // of all quantizers, in turn, one a step
  bool mixes = false;            // images, two of them each
};

std::ostream& operator<<(std::ostream& out, const Recipe& r) {
  return out << r.name;
}

const std::vector<Recipe> recipes = {
    {"float", "none"},
    {"sat", "sat"},
    {"lsq_adam", "lsq", "adam", 1},
    {"uniform_rmsprop", "uniform", "rmsprop", 0.5},
    {"mixed_uniform_adamw", "mixed-uniform", "adamw"},
    {"float_bf16", "none", "sgd", 0, DType::bf16},
    {"pact_bf16", "pact", "sgd", 1, DType::bf16},
    {"adabits_switching", "adabits", "adam", 0, DType::f32, {8, 4}},
    {"sat_mixed", "sat", "sgd", 0, DType::f32, {}, true},
};

Images images_of(const Recipe& recipe) {
  return {.count = 8, .size = 16, .classes = 4, .mixed = recipe.mixes};
}

std::shared_ptr<Module> make_network(const Recipe& recipe) {
  auto network = zoo::make_model("resnet20", {.num_classes = images_of(recipe).classes, .seed = 7});
  if (recipe.quantizer != "none")
    quant::quantize_network(*network,
                            {.weight_quantizer = recipe.quantizer, .activation_quantizer = recipe.quantizer});
  if (!recipe.widths.empty()) make_switchable(*network, recipe.widths);
  return network;
}

TrainOptions options_of(const Recipe& recipe, bool graph) {
  TrainOptions options;
  options.graph = graph;
  options.optimizer = recipe.optimizer;
  options.clip_grad = recipe.clip;
  options.lr = 0.002;
  return options;
}

// A ResNet-20 in training. The results of its steps wait on the device.
struct Training {
  TrainingRun training;
  Images images;
  std::vector<int> widths;
  int looks = 0;
  bool replaying = false;  // in the last step

  Training(const Recipe& recipe, Device device, bool graph)
      : training(options_of(recipe, graph), make_network(recipe), backend(device), 64, recipe.dtype),
        images(images_of(recipe)),
        widths(recipe.widths) {}

  void train(int count) {
    const Tensor weight = training.session.network->parameters().front();
    for (int i = 0; i < count; ++i) {
      if (!widths.empty())
        set_bits(*training.session.network, widths[static_cast<std::size_t>(training.steps) % widths.size()]);
      const std::uint64_t before = weight.storage_version();
      training.train(images, [&] {
        ++looks;
        // A step by the host shows its results before the update; a replayed one is whole by then.
        replaying = weight.storage_version() != before;
        EXPECT_FALSE(training.meter.due());
      });
    }
  }

  const StepResult& latest() {
    training.meter.read(training.state);
    return training.meter.latest();
  }

  // Everything that the steps have left behind.
  std::vector<std::vector<float>> results() {
    const StepResult& last = latest();
    EXPECT_TRUE(last.is_finite());
    std::vector<std::vector<float>> all = {
        {last.loss, last.gradient_norm, static_cast<float>(training.state.loss_sum)}};
    for (const NamedTensors& tensors :
         {training.session.network->state_dict(), training.session.optimizer->state()})
      for (const NamedTensor& t : tensors)
        if (t.tensor.dtype() == DType::f32) all.push_back(t.tensor.values());
    return all;
  }
};

// Quantizers measure, memory is taken, plans are chosen, a step is recorded; of two widths in turn, too.
constexpr int warm_up = StepGraph::warm_up + 6;

class DeviceStep : public OnDevice<Recipe> {
 private:
  const testing_support::Threads one_{1};  // at this size more only wait for each other
};

TEST_P(DeviceStep, TheHostWaitsForNothing) {
  for (const bool graph : {false, true}) {
    Training run(case_, device_, graph);
    run.train(warm_up);
    const std::uint64_t reads = host_read_count();
    const std::uint64_t waits = device_synchronization_count();
    run.train(6);
    EXPECT_EQ(host_read_count(), reads) << (graph ? "recorded" : "step by step");
    EXPECT_EQ(device_synchronization_count(), waits) << (graph ? "recorded" : "step by step");
    EXPECT_EQ(run.looks, run.training.steps);
    EXPECT_EQ(run.replaying, graph && backend(device_).has_graphs());
  }
}

TEST_P(DeviceStep, RecordedStepsTrainTheSame) {
  Training by_host(case_, device_, false);
  Training recorded(case_, device_, true);
  for (Training* run : {&by_host, &recorded}) run->train(warm_up + 6);
  EXPECT_FALSE(by_host.replaying);
  EXPECT_EQ(recorded.replaying, backend(device_).has_graphs());
  const std::vector<std::vector<float>> expected = by_host.results();
  const std::vector<std::vector<float>> got = recorded.results();
  EXPECT_EQ(got[0], expected[0]) << "last loss, its gradient's norm, sum of losses";
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(identical(got[i], expected[i])) << "tensor " << i;
}

// Before the updates of low bits make it chaotic. Values on rounding boundaries go to either side in the
// first forward already: the recorded trajectories move by half a percent then, on batches four times as
// large.
TEST_P(DeviceStep, TheFirstLossIsTheCpus) {
  const auto first_loss = [&](Device device) {
    Training run(case_, device, false);
    run.train(1);
    return static_cast<double>(run.latest().loss);
  };
  const double expected = first_loss(Device{});
  EXPECT_GT(expected, 0.5);
  const bool rounds = case_.quantizer != "none" || case_.dtype == DType::bf16;
  EXPECT_NEAR(first_loss(device_), expected, (rounds ? 5e-2 : 1e-4) * expected);
}

INSTANTIATE_TEST_SUITE_P(ResNet20, DeviceStep, on_devices(recipes), device_test_name);

}  // namespace
}  // namespace qtrain::cli
