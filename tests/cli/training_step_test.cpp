// Training steps whose device part is recorded and replayed. The device is the CPU: while recording, the work
// is done, so the first launch has nothing left to do; every later one does what the recorded kernels would
// do, from the tensors that the host filled, and nothing of what modules and optimizer keep on the host.
#include "cli/training_step.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "cli/optimizer_setup.h"
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

namespace qtrain::cli {
namespace {

class ReplayingBackend final : public CpuBackend {
 public:
  std::function<void()> device_work;
  int recorded = 0;
  int replayed = 0;

  bool has_graphs() const override { return true; }
  std::unique_ptr<GraphRecording> record_graph(const Stream&) override {
    ++recorded;
    return std::make_unique<Recording>(*this);
  }

 private:
  struct Graph final : DeviceGraph {
    explicit Graph(ReplayingBackend& b) : backend(b) {}
    void launch(const Stream&) override {
      if (launches++ == 0) return;
      ++backend.replayed;
      backend.device_work();
    }
    ReplayingBackend& backend;
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

data::Batch make_batch(int number, int count) {
  data::Batch batch;
  batch.count = count;
  batch.height = batch.width = 8;
  RandomStream random(3, RandomPurpose::user, 0, static_cast<std::uint64_t>(number));
  for (int i = 0; i < count; ++i) {
    batch.labels.push_back(static_cast<std::int64_t>(random.below(3)));
    for (int k = 0; k < 3 * 64; ++k)
      batch.bytes.push_back(
          static_cast<std::uint8_t>(random.below(80) + 60U * static_cast<unsigned>(batch.labels.back())));
  }
  return batch;
}

// As if its images were mixed in another proportion than those of the batch before.
data::Batch make_mixed_batch(int number, int count) {
  data::Batch batch = make_batch(number, count);
  batch.partner_labels.assign(batch.labels.rbegin(), batch.labels.rend());
  batch.lambda = 1 / (1 + static_cast<float>(number % 4));
  return batch;
}

// A run on such a network, and what it leaves behind.
struct Training {
  static constexpr std::size_t patience = 4;

  Session session;
  ReplayingBackend device;
  StepMeter meter{patience, {}};
  RunState state;
  std::vector<std::string> results;
  std::unique_ptr<TrainingStep> step;
  std::int64_t steps = 0;
  bool mixes = false;

  Training(const quant::WrapOptions& wrap, bool graph, const std::string& optimizer = "sgd",
           double clip = 0) {
    session.options.graph = graph;
    session.options.optimizer = optimizer;
    session.options.clip_grad = clip;
    session.options.epochs = 10;
    session.data.normalization = {.name = "own", .mean = {0.5F, 0.4F, 0.3F}, .deviation = {0.2F, 0.3F, 0.4F}};
    session.network = make_network(wrap);
    session.optimizer = make_optimizer(session.options, *session.network);
    session.schedule = make_run_schedule(session.options, 10);
    step = std::make_unique<TrainingStep>(session, meter, device);
    device.device_work = [this] { device_work(); };
  }

  void train(int count, int batch_size = 5) {
    for (int i = 0; i < count; ++i) {
      const auto next_batch = mixes ? make_mixed_batch : make_batch;
      step->run(next_batch(static_cast<int>(steps), batch_size), steps, [this] {
        if (!meter.due()) return;
        const std::int64_t images = state.images;
        meter.read(state);
        if (state.images != images)
          results.push_back(fmt::format("{} {} {} {}", meter.latest().step, meter.latest().loss,
                                        meter.latest().gradient_norm, state.correct));
      });
      ++steps;
    }
  }

  void device_work() {
    Module& network = *session.network;
    std::vector<std::int64_t> counts;
    for (const Tensor& c : network.counters()) counts.push_back(*c.data<std::int64_t>());
    {
      const DeviceBatch input = step->input();
      const Tensor logits = network(input.images);
      Tensor loss = classification_loss(logits, input, session.options);
      const Tensor more = quant::take_quantization_loss(network);
      if (more.defined()) loss = add(loss, more);
      const Tensor correct = count_top_k(logits, input.labels, 1);
      Tape::backward(loss);
      quant::before_update(network);
      const std::vector<Tensor> all = network.parameters();
      const auto limit = static_cast<float>(session.options.clip_grad);
      meter.record(loss, limit > 0 ? clip_gradient_norm(all, limit) : gradient_norm(all), correct);
    }
    EXPECT_TRUE(session.optimizer->apply()) << "a recorded update has no other rules than the prepared ones";
    quant::after_update(network);
    session.optimizer->zero_grad();
    const std::vector<Tensor> counters = network.counters();
    for (std::size_t i = 0; i < counts.size(); ++i) *counters[i].data<std::int64_t>() = counts[i];
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
  expect_same(a.session.network->state_dict(), b.session.network->state_dict());
  expect_same(a.session.optimizer->state(), b.session.optimizer->state());
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
      run->session.network->evaluate();
      (*run->session.network)(Tensor::full({2, 3, 8, 8}, 0.5F));
      run->session.network->train();
    }
  }
  EXPECT_EQ(replayed.device.recorded, 1);
  EXPECT_EQ(replayed.device.replayed, 14);
  expect_same(replayed, by_host);
}

TEST(TrainingStep, MixedBatchesBringTheirShareEachTime) {
  Training replayed(quantizer("sat"), true);
  Training by_host(quantizer("sat"), false);
  for (Training* run : {&replayed, &by_host}) {
    run->mixes = true;
    run->session.options.label_smoothing = 0.1;
    for (int epoch = 0; epoch < 3; ++epoch) {
      run->train(6);
      run->train(1, 3);
    }
  }
  EXPECT_EQ(replayed.device.recorded, 1);
  EXPECT_EQ(replayed.device.replayed, 14);
  expect_same(replayed, by_host);
}

TEST(TrainingStep, TheLossOfAMixedBatchCountsBothLabels) {
  Training run(quantizer("none"), false);
  const data::Batch batch = make_mixed_batch(3, 5);  // lambda is 1/4
  const DeviceBatch input = to_device(batch, run.session.data.normalization, {});
  const Tensor logits =
      Tensor::from_values({5, 3}, std::vector<float>{1, 2, 0, 0, 1, 5, 2, 2, 2, 3, 0, 1, 4, 1, 0});
  const float own = softmax_cross_entropy(logits, input.labels).item();
  const float partners = softmax_cross_entropy(logits, input.partner_labels).item();
  EXPECT_NEAR(classification_loss(logits, input, run.session.options).item(), 0.25F * own + 0.75F * partners,
              1e-6);
}

TEST(TrainingStep, WhatChangesTheForwardIsRecordedAnew) {
  const auto wrap = quantizer("lsq", {{"prox_epochs", "3"}});
  Training replayed(wrap, true);
  Training by_host(wrap, false);
  for (Training* run : {&replayed, &by_host})
    for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
      quant::start_epoch(*run->session.network, {.epoch = epoch, .milestones = 0});
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

TEST(TrainingStep, TheHostLooksBeforeTheUpdateWhereItCan) {
  Training run(quantizer("sat"), true);
  const Tensor weight = run.session.network->parameters().front();
  std::vector<float> before = weight.values();
  for (std::int64_t s = 0; s < 6; ++s) {
    int looks = 0;
    bool updated = false;
    run.step->run(make_batch(0, 5), s, [&] {
      ++looks;
      updated = weight.values() != before;
      if (run.meter.due()) run.meter.read(run.state);
    });
    EXPECT_EQ(looks, 1);
    EXPECT_EQ(updated, s >= 3) << "step " << s;
    before = weight.values();
  }
}

}  // namespace
}  // namespace qtrain::cli
