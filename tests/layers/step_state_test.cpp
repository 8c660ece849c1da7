#include "layers/step_state.h"

#include <gtest/gtest.h>

#include "engine/optim/sgd.h"
#include "layers/activation.h"
#include "layers/dropout.h"
#include "layers/normalization.h"
#include "layers/sequential.h"

namespace qtrain {
namespace {

std::int64_t value(const Tensor& counter) {
  return *counter.data<std::int64_t>();
}

class Unsteady final : public Module {
 public:
  Tensor forward(const Tensor& x) override { return x; }
  bool is_steady() const override { return false; }
  std::string kind() const override { return "Unsteady"; }
  std::string describe() const override { return "Unsteady()"; }
};

TEST(StepState, SteadinessIsThatOfTheWholeTree) {
  Sequential net{std::make_shared<BatchNorm2d>(2),
                 std::shared_ptr<Sequential>(new Sequential{std::make_shared<Dropout>(0.5F)})};
  EXPECT_TRUE(is_steady(net));
  net.replace_child("1.0", std::make_shared<Unsteady>());
  EXPECT_FALSE(is_steady(net));
}

TEST(StepState, ChangesShow) {
  const auto inner = std::shared_ptr<Sequential>(new Sequential{std::make_shared<BatchNorm2d>(2)});
  Sequential net{inner, std::make_shared<ReLU>()};
  std::uint64_t before = latest_change(net);
  net.train();
  net(Tensor::zeros({1, 2, 3, 3}));
  net.evaluate();
  EXPECT_EQ(latest_change(net), before) << "steps and modes are no changes";
  inner->replace_child("0", std::make_shared<BatchNorm2d>(2));
  EXPECT_NE(latest_change(net), before);
  before = latest_change(net);
  net.load_state_dict(net.state_dict());
  EXPECT_NE(latest_change(net), before);
  EXPECT_GT(inner->last_change(), before) << "each module has been loaded";
  before = latest_change(net);
  net.replace_child("0", std::make_shared<ReLU>());  // with all of its changes
  EXPECT_NE(latest_change(net), before);
}

TEST(StepState, ReplaysMoveCountersAsTheLastStepDid) {
  const auto used = std::make_shared<BatchNorm2d>(2);
  const auto idle = std::make_shared<BatchNorm2d>(2);
  struct Two final : Module {
    std::string kind() const override { return "Two"; }
    Tensor forward(const Tensor& x) override { return first(first(x, true), true); }
    Slot<Normalization> first;
    Slot<Normalization> second;
    Two(const std::shared_ptr<BatchNorm2d>& a, const std::shared_ptr<BatchNorm2d>& b)
        : first(add<Normalization>("first", a)), second(add<Normalization>("second", b)) {}
  } net(used, idle);
  const std::vector<Tensor> counters = net.counters();
  ASSERT_EQ(counters.size(), 2U);
  SGD sgd({{.parameters = net.named_parameters()}}, {.learning_rate = 0.1});
  StepTraces traces(net, sgd);
  const auto step = [&] {
    traces.start();
    net.forward(Tensor::zeros({1, 2, 3, 3}));
    used->weight().set_grad(Tensor::zeros({2}));
    sgd.step();
    return traces.finish();
  };
  const std::vector<std::int64_t> moves = step();
  EXPECT_EQ(moves, (std::vector<std::int64_t>{2, 0, 1, 0, 0, 0})) << "batches, and updates of parameters";
  EXPECT_EQ(step(), moves);
  traces.replay(moves);
  traces.replay(moves);
  EXPECT_EQ(value(counters[0]), 8);
  EXPECT_EQ(value(counters[1]), 0) << "what didn't take part stays";
  EXPECT_EQ(value(sgd.counters()[0]), 4);
  EXPECT_EQ(value(sgd.counters()[1]), 0);
  const std::uint64_t version = used->weight().storage_version();
  traces.replay(moves);
  EXPECT_GT(used->weight().storage_version(), version) << "the device has changed it";
}

TEST(StepState, SettingsAreThoseOfTheWholeTree) {
  struct Switch final : Module {
    std::int64_t position;
    explicit Switch(std::int64_t p) : position(p) {}
    std::string kind() const override { return "Switch"; }
    Tensor forward(const Tensor& x) override { return x; }
    void add_settings(std::vector<std::int64_t>& to) const override { to.push_back(position); }
  };
  const auto inner = std::make_shared<Switch>(2);
  Sequential net{std::make_shared<Switch>(1), std::shared_ptr<Sequential>(new Sequential{inner}),
                 std::make_shared<ReLU>()};
  EXPECT_EQ(settings(net), (std::vector<std::int64_t>{1, 2}));
  inner->position = 7;
  EXPECT_EQ(settings(net), (std::vector<std::int64_t>{1, 7}));
}

}  // namespace
}  // namespace qtrain
