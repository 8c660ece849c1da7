#include "layers/step_state.h"

#include <gtest/gtest.h>

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
  StepTraces traces(net);
  const auto step = [&] {
    traces.start();
    net.forward(Tensor::zeros({1, 2, 3, 3}));
    return traces.finish();
  };
  EXPECT_FALSE(step()) << "there was none before";
  EXPECT_TRUE(step());
  traces.replay();
  traces.replay();
  EXPECT_EQ(value(counters[0]), 8);
  EXPECT_EQ(value(counters[1]), 0) << "what didn't take part stays";
  const std::uint64_t version = used->weight().storage_version();
  traces.replay();
  EXPECT_GT(used->weight().storage_version(), version) << "the device has changed it";
  traces.start();
  EXPECT_FALSE(traces.finish()) << "this time, nothing moved";
}

}  // namespace
}  // namespace qtrain
