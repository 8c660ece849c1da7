// A training run on a device never waits for the host or makes it wait, and whether its steps are queued one
// by one or recorded and replayed, it computes the same.
#include <gtest/gtest.h>

#include "cli/optimizer_setup.h"
#include "cli/training_step.h"
#include "engine/core/host_read.h"
#include "quant/wrap.h"
#include "tests/devices.h"
#include "tests/engine/support.h"
#include "zoo/registry.h"

namespace qtrain::cli {
namespace {

using testing_support::device_test_name;
using testing_support::identical;
using testing_support::on_devices;
using testing_support::OnDevice;

struct Recipe {
  std::string name;
  std::string quantizer;
  std::string optimizer = "sgd";
  double clip = 0;
  DType dtype = DType::f32;
  bool mixes = false;
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
    {"sat_mixed", "sat", "sgd", 0, DType::f32, true},
};

data::Batch make_batch(std::int64_t number, bool mixed) {
  constexpr std::int64_t size = 16;
  data::Batch batch;
  batch.count = 8;
  batch.height = batch.width = size;
  RandomStream random(3, RandomPurpose::user, 0, static_cast<std::uint64_t>(number));
  for (std::int64_t i = 0; i < batch.count; ++i) {
    batch.labels.push_back(static_cast<std::int64_t>(random.below(4)));
    for (std::int64_t k = 0; k < 3 * size * size; ++k)
      batch.bytes.push_back(
          static_cast<std::uint8_t>(random.below(80) + 50U * static_cast<unsigned>(batch.labels.back())));
  }
  if (mixed) {
    batch.partner_labels.assign(batch.labels.rbegin(), batch.labels.rend());
    batch.lambda = static_cast<float>(random.uniform());
  }
  return batch;
}

// A ResNet-20 in training, as `qtrain train` does it. The results of its steps wait on the device.
struct Training {
  static constexpr std::size_t patience = 64;

  Session session;
  StepMeter meter;
  RunState state;
  std::unique_ptr<TrainingStep> step;
  std::int64_t steps = 0;
  int looks = 0;
  bool replaying = false;  // in the last step
  bool mixes;

  Training(const Recipe& recipe, Device device, bool graph) : meter(patience, device), mixes(recipe.mixes) {
    session.options.graph = graph;
    session.options.optimizer = recipe.optimizer;
    session.options.clip_grad = recipe.clip;
    session.options.lr = 0.002;
    session.options.epochs = 10;
    session.device = device;
    session.data.normalization = {
        .name = "own", .mean = {0.5F, 0.4F, 0.3F}, .deviation = {0.2F, 0.3F, 0.4F}, .dtype = recipe.dtype};
    session.network = zoo::make_model("resnet20", {.num_classes = 4, .seed = 7});
    if (recipe.quantizer != "none")
      quant::quantize_network(
          *session.network, {.weight_quantizer = recipe.quantizer, .activation_quantizer = recipe.quantizer});
    session.network->to(device);
    session.optimizer = make_optimizer(session.options, *session.network);
    session.schedule = make_run_schedule(session.options, 10);
    step = std::make_unique<TrainingStep>(session, meter, backend(device));
  }

  void train(int count) {
    const Tensor weight = session.network->parameters().front();
    for (int i = 0; i < count; ++i, ++steps) {
      const std::uint64_t before = weight.storage_version();
      step->run(make_batch(steps, mixes), steps, [&] {
        ++looks;
        // A step by the host shows its results before the update; a replayed one is whole by then.
        replaying = weight.storage_version() != before;
        EXPECT_FALSE(meter.due());
      });
    }
  }

  // Everything that the steps have left behind.
  std::vector<std::vector<float>> results() {
    meter.read(state);
    EXPECT_TRUE(meter.latest().is_finite());
    std::vector<std::vector<float>> all = {
        {meter.latest().loss, meter.latest().gradient_norm, static_cast<float>(state.loss_sum)}};
    for (const NamedTensors& tensors : {session.network->state_dict(), session.optimizer->state()})
      for (const NamedTensor& t : tensors)
        if (t.tensor.dtype() == DType::f32) all.push_back(t.tensor.values());
    return all;
  }
};

// Quantizers measure, memory is taken, plans are chosen, a step is recorded.
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
    EXPECT_EQ(run.looks, run.steps);
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
    run.meter.read(run.state);
    return static_cast<double>(run.meter.latest().loss);
  };
  const double expected = first_loss(Device{});
  EXPECT_GT(expected, 0.5);
  const bool rounds = case_.quantizer != "none" || case_.dtype == DType::bf16;
  EXPECT_NEAR(first_loss(device_), expected, (rounds ? 5e-2 : 1e-4) * expected);
}

INSTANTIATE_TEST_SUITE_P(ResNet20, DeviceStep, on_devices(recipes), device_test_name);

}  // namespace
}  // namespace qtrain::cli
