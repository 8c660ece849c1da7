// The whole stack at its smallest: a network, a loss, the tape and an optimizer.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/core/rng.h"
#include "engine/kernels/parallel.h"
#include "engine/ops/cast.h"
#include "engine/ops/loss.h"
#include "engine/optim/clip.h"
#include "engine/optim/schedules.h"
#include "engine/optim/sgd.h"
#include "zoo/registry.h"

namespace qtrain::zoo {
namespace {

constexpr std::int64_t batch_size = 8;

Tensor random_images() {
  RandomStream random(5, RandomPurpose::user);
  std::vector<float> values(static_cast<std::size_t>(batch_size * 3 * 16 * 16));
  for (float& v : values) v = static_cast<float>(random.normal());
  return Tensor::from_values({batch_size, 3, 16, 16}, values);
}

Tensor labels() {
  std::vector<std::int64_t> values(batch_size);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int64_t>(i) % 4;
  return Tensor::from_values<std::int64_t>({batch_size}, values);
}

// One thread: at this size threads only wait for each other, and the sums are the same for any number.
struct TinyRun {
  explicit TinyRun(DType activations = DType::f32) : images(cast(random_images(), activations)) {
    set_thread_count(1);
  }

  std::shared_ptr<Module> model = make_model("resnet20", {.num_classes = 4, .seed = 7});
  SGD sgd{{{.parameters = model->named_parameters(), .weight_decay = 1e-4}},
          {.learning_rate = 0.05, .momentum = 0.9, .nesterov = true}};
  Tensor images;
  Tensor targets = labels();
  Schedule schedule = make_schedule({.name = "cosine", .total_steps = 20, .warmup_steps = 3});

  std::vector<float> losses(int from, int to) {
    std::vector<float> result;
    for (int step = from; step < to; ++step) {
      sgd.set_learning_rate(0.05 * schedule(step));
      sgd.zero_grad();
      const Tensor loss = softmax_cross_entropy(cast((*model)(images), DType::f32), targets);
      Tape::backward(loss);
      clip_gradient_norm(model->parameters(), 5);
      sgd.step();
      result.push_back(loss.item());
    }
    return result;
  }
};

TEST(Training, TheLossOfARandomBatchFalls) {
  TinyRun run;
  const std::vector<float> losses = run.losses(0, 20);
  EXPECT_NEAR(losses.front(), 1.4F, 1.0F);
  EXPECT_LT(losses.back(), 0.2F * losses.front());
}

TEST(Training, Bf16FollowsFloat32) {
  TinyRun wide;
  TinyRun narrow(DType::bf16);
  const std::vector<float> expected = wide.losses(0, 10);
  const std::vector<float> losses = narrow.losses(0, 10);
  for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 0.1F) << "step " << i;
  EXPECT_NE(losses, expected);
  for (const NamedTensor& t : narrow.model->state_dict())
    EXPECT_NE(t.tensor.dtype(), DType::bf16) << t.name << " is kept in float32";
}

TEST(Training, StateDictsResumeBitForBit) {
  TinyRun straight;
  straight.losses(0, 4);
  TinyRun resumed;
  resumed.model->load_state_dict(straight.model->state_dict());
  resumed.sgd.load_state(straight.sgd.state());
  EXPECT_EQ(straight.losses(4, 7), resumed.losses(4, 7));
  EXPECT_EQ(straight.model->named_buffers()[2].tensor.values<std::int64_t>()[0], 7);
}

TEST(Training, ErrorsOfTheFiniteCheckNameTheLayer) {
  TinyRun run;
  for (const NamedTensor& p : run.model->named_parameters())
    if (p.name == "layer2.1.conv2.weight") p.tensor.copy_from(Tensor::full(p.tensor.shape(), NAN));
  const FiniteCheckGuard guard;
  try {
    run.losses(0, 1);
    FAIL();
  } catch (const std::exception& e) {
    EXPECT_NE(std::string(e.what()).find("layer2.1.conv2"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace qtrain::zoo
