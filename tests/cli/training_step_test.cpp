// TrainingRun steps whose device part is recorded and replayed. The device is the CPU: while recording, the
// work is done, so the first launch has nothing left to do; every later one does what the recorded kernels
// would do, from the tensors that the host filled, and nothing of what modules and optimizer keep on the
// host.
#include "cli/training_step.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "engine/autograd/tape.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/loss.h"
#include "engine/ops/rearrange.h"
#include "engine/optim/clip.h"
#include "layers/activation.h"
#include "layers/conv2d.h"
#include "layers/init.h"
#include "layers/linear.h"
#include "layers/normalization.h"
#include "layers/pooling.h"
#include "layers/sequential.h"
#include "quant/wrap.h"
#include "tests/cli/training_run.h"

namespace qtrain::cli {
namespace {

using testing_support::Images;
using testing_support::make_switchable;
using testing_support::set_bits;
using testing_support::TrainingRun;

class ReplayingBackend final : public CpuBackend {
 public:
  std::function<void()> device_work;
  std::function<std::vector<std::int64_t>()> settings;  // that decide on the work
  int recorded = 0;
  int replayed = 0;

  bool has_graphs() const override { return true; }
  std::unique_ptr<GraphRecording> record_graph(const Stream&) override {
    ++recorded;
    return std::make_unique<Recording>(*this);
  }

 private:
  struct Graph final : DeviceGraph {
    explicit Graph(ReplayingBackend& b) : backend(b), settings(b.settings()) {}
    void launch(const Stream&) override {
      if (launches++ == 0) return;
      ++backend.replayed;
      EXPECT_EQ(settings, backend.settings()) << "what was recorded is other work";
      backend.device_work();
    }
    ReplayingBackend& backend;
    std::vector<std::int64_t> settings;
    int launches = 0;
  };
  struct Recording final : GraphRecording {
    explicit Recording(ReplayingBackend& b) : backend(b) {}
    std::unique_ptr<DeviceGraph> finish() override { return std::make_unique<Graph>(backend); }
    ReplayingBackend& backend;
  };
};

std::shared_ptr<Sequential> make_network(const quant::WrapOptions& wrap) {
  auto net = std::make_shared<Sequential>();
  net->append(std::make_shared<Conv2d>(
                  Conv2dOptions{.in_channels = 3, .out_channels = 4, .kernel = {3, 3}, .bias = false}))
      .append(std::make_shared<BatchNorm2d>(4))
      .append(std::make_shared<ReLU>())
      .append(std::make_shared<Conv2d>(
          Conv2dOptions{.in_channels = 4, .out_channels = 6, .kernel = {3, 3}, .bias = false}))
      .append(std::make_shared<BatchNorm2d>(6))
      .append(std::make_shared<ReLU>())
      .append(std::make_shared<GlobalAvgPool2d>())
      .append(std::make_shared<Flatten>())
      .append(std::make_shared<Linear>(6, 3));
  reset_parameters(*net, 1);
  quant::quantize_network(*net, wrap);
  return net;
}

constexpr Images images{.count = 5, .size = 8, .classes = 3};

// A run on such a network, and what it leaves behind.
struct Training {
  ReplayingBackend device;
  TrainingRun training;
  std::vector<std::string> results;
  bool mixes = false;

  Training(const std::shared_ptr<Module>& network, bool graph, const std::string& optimizer = "sgd",
           double clip = 0)
      : training(options(graph, optimizer, clip), network, device, 4) {
    device.device_work = [this] { device_work(); };
    device.settings = [this] { return settings(this->network()); };
  }
  Training(const quant::WrapOptions& wrap, bool graph, const std::string& optimizer = "sgd", double clip = 0)
      : Training(make_network(wrap), graph, optimizer, clip) {}

  Module& network() { return *training.session.network; }
  Optimizer& optimizer() { return *training.session.optimizer; }

  void train(int count, int batch_size = images.count) {
    StepMeter& meter = training.meter;
    RunState& state = training.state;
    for (int i = 0; i < count; ++i)
      training.train({batch_size, images.size, images.classes, mixes}, [&] {
        if (!meter.due()) return;
        const std::int64_t before = state.images;
        meter.read(state);
        if (state.images != before)
          results.push_back(fmt::format("{} {} {} {}", meter.latest().step, meter.latest().loss,
                                        meter.latest().gradient_norm, state.correct));
      });
  }

 private:
  static TrainOptions options(bool graph, const std::string& optimizer, double clip) {
    TrainOptions o;
    o.graph = graph;
    o.optimizer = optimizer;
    o.clip_grad = clip;
    return o;
  }

  std::vector<Tensor> counters() {
    std::vector<Tensor> all = network().counters();
    for (const Tensor& steps : optimizer().counters()) all.push_back(steps);
    return all;
  }

  void device_work() {
    std::vector<std::int64_t> counts;
    for (const Tensor& c : counters()) counts.push_back(*c.data<std::int64_t>());
    {
      const DeviceBatch input = training.step->input();
      const Tensor logits = network()(input.images);
      Tensor loss = classification_loss(logits, input, training.session.options);
      const Tensor more = quant::take_quantization_loss(network());
      if (more.defined()) loss = add(loss, more);
      const Tensor correct = count_top_k(logits, input.labels, 1);
      Tape::backward(loss);
      quant::before_update(network());
      const std::vector<Tensor> all = network().parameters();
      const auto limit = static_cast<float>(training.session.options.clip_grad);
      training.meter.record(loss, limit > 0 ? clip_gradient_norm(all, limit) : gradient_norm(all), correct);
    }
    EXPECT_TRUE(optimizer().apply()) << "a recorded update takes the numbers that are prepared";
    quant::after_update(network());
    optimizer().zero_grad();
    const std::vector<Tensor> now = counters();
    for (std::size_t i = 0; i < counts.size(); ++i) *now[i].data<std::int64_t>() = counts[i];
  }
};

template <class T>
bool same_bytes(const Tensor& a, const Tensor& b) {
  const std::vector<T> x = a.values<T>();
  const std::vector<T> y = b.values<T>();
  return std::memcmp(x.data(), y.data(), a.bytes()) == 0;
}

void expect_same(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].name, b[i].name);
    EXPECT_TRUE(a[i].tensor.dtype() == DType::i64 ? same_bytes<std::int64_t>(a[i].tensor, b[i].tensor)
                                                  : same_bytes<float>(a[i].tensor, b[i].tensor))
        << a[i].name;
  }
}

void expect_same(Training& a, Training& b) {
  EXPECT_FALSE(a.results.empty());
  EXPECT_EQ(a.results, b.results);
  expect_same(a.network().state_dict(), b.network().state_dict());
  expect_same(a.optimizer().state(), b.optimizer().state());
}

quant::WrapOptions quantizer(const std::string& name,
                             const std::map<std::string, std::string>& options = {}) {
  return {.weight_quantizer = name,
          .activation_quantizer = name,
          .weight_options = options,
          .activation_options = options};
}

TEST(TrainingStep, ReplaysTrainAsTheHostDoes) {
  struct Case {
    quant::WrapOptions wrap;
    std::string optimizer;
    double clip;
  };
  const std::vector<Case> cases = {
      {quantizer("sat"), "sgd", 0},
      {quantizer("lsq", {{"parametrization", "step"}}), "adam", 0},
      {quantizer("uniform"), "rmsprop", 0.1},
      {quantizer("lsq", {{"stable", "3"}, {"quant_loss", "l2"}}), "adamw", 0},
      {quantizer("mixed-uniform"), "sgd", 0.05},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.wrap.weight_quantizer + " " + c.optimizer);
    Training replayed(c.wrap, true, c.optimizer, c.clip);
    Training by_host(c.wrap, false, c.optimizer, c.clip);
    for (Training* run : {&replayed, &by_host}) run->train(16);
    EXPECT_EQ(by_host.device.recorded, 0);
    EXPECT_EQ(replayed.device.recorded, 1);
    EXPECT_GE(replayed.device.replayed, 8);
    expect_same(replayed, by_host);
  }
}

TEST(TrainingStep, ASmallerBatchAndAnEvaluationComeInBetween) {
  Training replayed(quantizer("sat"), true);
  Training by_host(quantizer("sat"), false);
  for (Training* run : {&replayed, &by_host}) {
    for (int epoch = 0; epoch < 3; ++epoch) {
      run->train(6);
      run->train(1, 3);
      run->network().evaluate();
      run->network()(Tensor::full({2, 3, 8, 8}, 0.5F));
      run->network().train();
    }
  }
  EXPECT_EQ(replayed.device.recorded, 2) << "anew when the first smaller batch had been there";
  EXPECT_EQ(replayed.device.replayed, 13);
  expect_same(replayed, by_host);
}

TEST(TrainingStep, MixedBatchesBringTheirShareEachTime) {
  Training replayed(quantizer("sat"), true);
  Training by_host(quantizer("sat"), false);
  for (Training* run : {&replayed, &by_host}) {
    run->mixes = true;
    run->training.session.options.label_smoothing = 0.1;
    for (int epoch = 0; epoch < 3; ++epoch) {
      run->train(6);
      run->train(1, 3);
    }
  }
  EXPECT_EQ(replayed.device.recorded, 2) << "anew when the first smaller batch had been there";
  EXPECT_EQ(replayed.device.replayed, 13);
  expect_same(replayed, by_host);
}

TEST(TrainingStep, TheLossOfAMixedBatchCountsBothLabels) {
  Training run(quantizer("none"), false);
  Images mixed = images;
  mixed.mixed = true;
  const data::Batch batch = make_batch(mixed, 3);  // lambda is 1/4
  const cli::Session& session = run.training.session;
  const DeviceBatch input = to_device(batch, session.data.normalization, {});
  const Tensor logits =
      Tensor::from_values({5, 3}, std::vector<float>{1, 2, 0, 0, 1, 5, 2, 2, 2, 3, 0, 1, 4, 1, 0});
  const float own = softmax_cross_entropy(logits, input.labels).item();
  const float partners = softmax_cross_entropy(logits, input.partner_labels).item();
  EXPECT_NEAR(classification_loss(logits, input, session.options).item(), 0.25F * own + 0.75F * partners,
              1e-6);
}

TEST(TrainingStep, WhatChangesTheForwardIsRecordedAnew) {
  const auto wrap = quantizer("lsq", {{"prox_epochs", "3"}});
  Training replayed(wrap, true);
  Training by_host(wrap, false);
  for (Training* run : {&replayed, &by_host})
    for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
      quant::start_epoch(run->network(), {.epoch = epoch, .milestones = 0});
      run->train(8);
    }
  EXPECT_EQ(replayed.device.recorded, 4) << "prox is 1, 2/3, 1/3, 0, 0";
  expect_same(replayed, by_host);
}

TEST(TrainingStep, WhatIsNeverSteadyIsNeverRecorded) {
  const auto wrap = quantizer("lq-nets", {{"custom_update", "true"}});
  Training replayed(wrap, true);
  Training by_host(wrap, false);
  for (Training* run : {&replayed, &by_host}) run->train(8);
  EXPECT_EQ(replayed.device.recorded, 0);
  expect_same(replayed, by_host);
}

// A width has its own clipping level and batch norms, as in the reference (adabits).
std::shared_ptr<Module> make_switchable_network() {
  std::shared_ptr<Module> net = make_network(quantizer("adabits"));
  make_switchable(*net, {8, 6, 5, 4});
  return net;
}

TEST(TrainingStep, EveryBitWidthIsRecordedOnce) {
  constexpr int rounds = 10;
  for (const char* optimizer : {"sgd", "adam"}) {
    SCOPED_TRACE(optimizer);
    Training replayed(make_switchable_network(), true, optimizer);
    Training by_host(make_switchable_network(), false, optimizer);
    for (Training* run : {&replayed, &by_host})
      for (int round = 0; round < rounds; ++round)
        for (const int bits : {8, 6, 5, 4}) {
          set_bits(run->network(), bits);
          const int before = run->device.replayed;
          run->train(1);
          // The first step makes the optimizer's state; two more are the warm-up, one is recorded.
          const bool replays = run == &replayed && round >= 4;
          EXPECT_EQ(run->device.replayed, before + (replays ? 1 : 0)) << bits << " bits";
        }
    EXPECT_EQ(replayed.device.recorded, 4);
    EXPECT_EQ(replayed.device.replayed, 4 * (rounds - 4));
    expect_same(replayed, by_host);
  }
}

TEST(TrainingStep, AWidthThatJoinsLateIsTrainedRight) {
  const std::vector<int> widths = {8, 8, 8, 8, 8, 4, 8, 8, 4, 8, 4, 8, 4,
                                   4, 8, 6, 8, 4, 6, 8, 4, 6, 6, 6, 8, 4};
  Training replayed(make_switchable_network(), true, "adam");
  Training by_host(make_switchable_network(), false, "adam");
  for (Training* run : {&replayed, &by_host})
    for (const int bits : widths) {
      set_bits(run->network(), bits);
      run->train(1);
    }
  EXPECT_GE(replayed.device.replayed, 8);
  expect_same(replayed, by_host);
}

TEST(TrainingStep, AChangeEndsAllRecordings) {
  Training replayed(make_switchable_network(), true);
  Training by_host(make_switchable_network(), false);
  for (Training* run : {&replayed, &by_host})
    for (int part = 0; part < 3; ++part) {
      for (int i = 0; i < 12; ++i) {
        set_bits(run->network(), i % 2 == 0 ? 8 : 4);
        run->train(1);
      }
      if (part == 0) run->network().replace_child("7", std::make_shared<Flatten>());
      if (part == 1) run->network().load_state_dict(run->network().state_dict());
    }
  EXPECT_EQ(replayed.device.recorded, 6);
  expect_same(replayed, by_host);
}

TEST(TrainingStep, AQuantizerThatStartsAnewIsNoOldSetting) {
  Training replayed(quantizer("mixed-uniform"), true);
  Training by_host(quantizer("mixed-uniform"), false);
  for (Training* run : {&replayed, &by_host})
    for (const int bits : {4, 3, 4}) {
      set_bits(run->network(), bits);
      run->train(8);
    }
  EXPECT_EQ(replayed.device.recorded, 3);
  expect_same(replayed, by_host);
}

TEST(TrainingStep, TheHostLooksBeforeTheUpdateWhereItCan) {
  Training run(quantizer("sat"), true);
  TrainingRun& training = run.training;
  const Tensor weight = run.network().parameters().front();
  std::vector<float> before = weight.values();
  for (std::int64_t s = 0; s < 6; ++s) {
    int looks = 0;
    bool updated = false;
    training.train(images, [&] {
      ++looks;
      updated = weight.values() != before;
      if (training.meter.due()) training.meter.read(training.state);
    });
    EXPECT_EQ(looks, 1);
    EXPECT_EQ(updated, s >= 3) << "step " << s;
    before = weight.values();
  }
}

}  // namespace
}  // namespace qtrain::cli
