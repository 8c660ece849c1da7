#include "engine/autograd/tape.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/ops/activation.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/convolution.h"
#include "engine/ops/reduce.h"

namespace qtrain {
namespace {

Tensor leaf(float value) {
  return Tensor::scalar(value).set_requires_grad(true);
}

template <class ErrorType, class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const ErrorType& error) {
    return error.what();
  }
  return "no such error";
}

TEST(Tape, DiamondsAddTheirPaths) {
  Tensor x = leaf(3);
  const Tensor square = multiply(x, x);                // x^2
  const Tensor left = multiply(square, x);             // x^3
  const Tensor right = scale(square, 5);               // 5 x^2
  Tape::backward(add(multiply(left, right), square));  // 5 x^5 + x^2
  EXPECT_FLOAT_EQ(x.grad().item(), 25 * 81 + 6);
}

TEST(Tape, LongPathsFinishBeforeTheirProducers) {
  Tensor x = leaf(1);
  const Tensor shared = scale(x, 2);
  Tensor long_path = shared;
  for (int i = 0; i < 10; ++i) long_path = shift(long_path, 1);
  Tape::backward(add(shared, long_path));
  EXPECT_EQ(x.grad().item(), 4);
}

TEST(Tape, GradientsAccumulateOverBackwards) {
  Tensor x = leaf(2);
  for (int i = 1; i <= 3; ++i) {
    Tape::backward(multiply(x, x));
    EXPECT_EQ(x.grad().item(), 4.0F * static_cast<float>(i));
  }
}

TEST(Tape, AccumulationLeavesEarlierHandlesAlone) {
  Tensor x = leaf(2);
  Tape::backward(scale(x, 3));
  const Tensor before = x.grad();
  Tape::backward(scale(x, 3));
  EXPECT_EQ(before.item(), 3);
  EXPECT_EQ(x.grad().item(), 6);
}

TEST(Tape, LeafGradientsShareNoElements) {
  Tensor a = leaf(1);
  Tensor b = leaf(1);
  const Tensor seed = Tensor::scalar(7);
  Tape::backward(add(a, b), seed);  // both gradients, and the seed, are the same number
  EXPECT_FALSE(a.grad().shares_storage_with(b.grad()));
  EXPECT_FALSE(a.grad().shares_storage_with(seed));
  EXPECT_FALSE(b.grad().shares_storage_with(seed));
  add_in_place(a.grad(), Tensor::scalar(1));
  EXPECT_EQ(b.grad().item(), 7);
  EXPECT_EQ(seed.item(), 7);
}

TEST(Tape, GivenGradientIsUsed) {
  Tensor x = Tensor::full({2}, 1).set_requires_grad(true);
  Tape::backward(scale(x, 2), Tensor::from_values({2}, {1, -3}));
  EXPECT_EQ(x.grad().values(), (std::vector<float>{2, -6}));
}

TEST(Tape, GradientOfAnotherFormIsRefused) {
  Tensor x = Tensor::full({2}, 1).set_requires_grad(true);
  EXPECT_THROW(Tape::backward(scale(x, 2), Tensor::zeros({3})), ShapeError);
  EXPECT_THROW(Tape::backward(scale(x, 2), Tensor::zeros({})), ShapeError);
  EXPECT_THROW(Tape::backward(scale(x, 2), Tensor::zeros({2}, DType::f64)), DTypeError);
  EXPECT_THROW(Tape::backward(scale(x, 2)), AutogradError);
  EXPECT_THROW(Tape::backward(x), AutogradError);
  EXPECT_THROW(Tape::backward(Tensor::scalar(1)), AutogradError);
  EXPECT_THROW(Tape::backward(Tensor()), Error);
}

TEST(Tape, NoGradGuardStopsRecordingOnThisThreadOnly) {
  Tensor x = leaf(1);
  EXPECT_TRUE(Tape::recording());
  {
    const NoGradGuard outer;
    { const NoGradGuard inner; }
    EXPECT_FALSE(Tape::recording());
    EXPECT_FALSE(scale(x, 2).requires_grad());
    bool elsewhere = false;
    std::thread([&] { elsewhere = Tape::recording(); }).join();
    EXPECT_TRUE(elsewhere);
  }
  EXPECT_TRUE(scale(x, 2).requires_grad());
  EXPECT_FALSE(scale(x.detach(), 2).requires_grad());
  EXPECT_FALSE(scale(x.clone(), 2).requires_grad());
}

TEST(Tape, NothingIsRecordedWithoutNeed) {
  const Tensor y = multiply(Tensor::scalar(1), Tensor::scalar(2));
  EXPECT_EQ(y.producer(), nullptr);
  EXPECT_TRUE(Tape::nodes(y).empty());
}

TEST(Tape, SecondBackwardIsAnErrorWhateverWasSaved) {
  Tensor x = leaf(2);
  const std::pair<const char*, Tensor> outputs[] = {{"saves tensors", multiply(x, x)},
                                                    {"saves nothing", add(x, x)},
                                                    {"saves nothing", mean(multiply(x, x))},
                                                    {"behind", scale(multiply(x, x), 2)}};
  for (const auto& [what, y] : outputs) {
    Tape::backward(y);
    x.set_grad({});
    EXPECT_NE(message_of<AutogradError>([&, t = y] { Tape::backward(t); }).find("one backward() per forward"),
              std::string::npos)
        << what;
    EXPECT_FALSE(x.grad().defined());
  }
}

TEST(Tape, SharedPartOfTwoLossesIsUsedOnce) {
  Tensor x = leaf(2);
  const Tensor shared = scale(x, 3);
  const Tensor first = scale(shared, 2);
  const Tensor second = scale(shared, 5);
  Tape::backward(first);
  EXPECT_THROW(Tape::backward(second), AutogradError);
}

TEST(Tape, InPlaceChangeOfASavedTensorIsDetected) {
  const auto change = [](const Tensor& saved, const Tensor& y) {
    add_in_place(saved, saved);
    return message_of<AutogradError>([&] { Tape::backward(y); });
  };
  Tensor a = leaf(2);
  Tensor b = leaf(3);
  EXPECT_NE(change(b, multiply(a, b)).find("'b' was changed in place"), std::string::npos);
  const Tensor y = relu(a);
  EXPECT_NE(change(y, y).find("'y' was changed in place"), std::string::npos);
  const Tensor detached = b.detach();
  EXPECT_NE(change(detached, multiply(a, b)).find("'b' was changed"), std::string::npos)
      << "through another handle";
  Tensor c = leaf(1);
  const Tensor sum_of = add(c, c);
  add_in_place(c, Tensor::scalar(1));
  EXPECT_NO_THROW(Tape::backward(sum_of)) << "nobody saved c";
}

TEST(Tape, SavedTensorsHaveNamesAndSizes) {
  Tensor x = Tensor::zeros({1, 4, 6, 6}).set_requires_grad(true);
  Tensor w = Tensor::zeros({8, 4, 3, 3}).set_requires_grad(true);
  const Tensor y = relu(conv2d(x, w));
  const auto nodes = Tape::nodes(y);
  ASSERT_EQ(nodes.size(), 2U);
  EXPECT_EQ(nodes[0]->name(), "relu");
  EXPECT_EQ(nodes[1]->name(), "conv2d");
  std::vector<std::pair<std::string, std::size_t>> saved;
  for (const auto& node : nodes)
    for (const SavedTensor* s : node->saved()) saved.emplace_back(s->name(), s->bytes());
  const std::vector<std::pair<std::string, std::size_t>> want{
      {"y", y.bytes()}, {"x", x.bytes()}, {"weight", w.bytes()}};
  EXPECT_EQ(saved, want);
}

// y = 2 x, made again from x whenever somebody needs it.
struct DoubledNode final : Node {
  SavedTensor x{"x"};
  int* times = nullptr;
  std::string_view name() const override { return "doubled"; }
  std::vector<SavedTensor*> saved() override { return {&x}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    return {scale(grad_outputs[0], 2)};
  }
  bool can_recompute() const override { return true; }
  Tensor recompute(std::size_t) override {
    ++*times;
    const NoGradGuard no_grad;
    return scale(x.get(), 2);
  }
};

Tensor doubled(const Tensor& x, int* times) {
  Tensor y;
  {
    const NoGradGuard no_grad;
    y = scale(x, 2);
  }
  return Tape::record<DoubledNode>("doubled", {x}, y, [&](DoubledNode& node) {
    node.x.save(x);
    node.times = times;
  });
}

TEST(Tape, RecomputedTensorsAreNotKept) {
  int times = 0;
  Tensor x = leaf(3);
  Tensor y = doubled(x, &times);
  Tensor w = leaf(5);
  const Tensor z = multiply(y, w);
  SavedTensor* saved = Tape::nodes(z)[0]->saved()[0];
  EXPECT_TRUE(saved->recomputed());
  EXPECT_TRUE(saved->defined());
  EXPECT_EQ(saved->bytes(), 0U);
  y = {};  // nobody holds the elements any more
  EXPECT_EQ(times, 0);
  Tape::backward(z);
  EXPECT_GE(times, 1);
  EXPECT_EQ(w.grad().item(), 6);
  EXPECT_EQ(x.grad().item(), 10);
}

TEST(Tape, RecomputationNoticesChangesToo) {
  int times = 0;
  Tensor x = leaf(3);
  const Tensor z = multiply(doubled(x, &times), leaf(5));
  add_in_place(x, Tensor::scalar(1));
  EXPECT_THROW(Tape::backward(z), AutogradError);
}

TEST(SavedTensor, ReleasedTwiceStaysReleased) {
  SavedTensor s("t");
  EXPECT_FALSE(s.get().defined()) << "never saved";
  s.save(Tensor::scalar(1));
  s.release();
  s.release();
  EXPECT_THROW((void)s.get(), AutogradError);
}

struct TwoOutputsNode final : Node {
  std::string_view name() const override { return "two"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> g) override {
    Tensor total = Tensor::scalar(0);
    if (g[0].defined()) add_in_place(total, scale(g[0], 10));
    if (g[1].defined()) add_in_place(total, scale(g[1], 100));
    return {total};
  }
};

TEST(Tape, SeveralOutputs) {
  for (const auto& [use, want] : {std::pair{1, 10.0F}, {2, 100.0F}, {3, 110.0F}}) {
    Tensor x = leaf(1);
    const Tensor outputs[] = {Tensor::scalar(10), Tensor::scalar(100)};
    Tape::record(std::make_shared<TwoOutputsNode>(), std::span<const Tensor>(&x, 1), outputs);
    Tape::backward(use == 3 ? add(outputs[0], outputs[1]) : scale(outputs[use - 1], 1));
    EXPECT_EQ(x.grad().item(), want);
  }
}

TEST(Tape, BackwardFreesEverything) {
  const auto in_use = [] { return backend(Device{}).allocator().statistics().in_use; };
  const std::size_t before = in_use();
  {
    Tensor x = Tensor::full({1, 4, 32, 32}, 1).set_requires_grad(true);
    Tensor w = Tensor::full({4, 4, 3, 3}, 0.1F).set_requires_grad(true);
    const std::size_t leaves = in_use();
    Tensor loss = mean(multiply(relu(conv2d(x, w)), Tensor::scalar(2)));
    EXPECT_GT(in_use(), leaves + 14400);
    Tape::backward(loss);
    // What is left: the two gradients and the loss.
    EXPECT_LE(in_use(), leaves + x.bytes() + w.bytes() + 3072);
    loss = {};
    x.set_grad({});
    w.set_grad({});
    EXPECT_EQ(in_use(), leaves);
  }
  EXPECT_EQ(in_use(), before);
}

TEST(Tape, AbandonedGraphIsFreed) {
  const auto in_use = [] { return backend(Device{}).allocator().statistics().in_use; };
  const std::size_t before = in_use();
  {
    Tensor x = Tensor::full({100}, 1).set_requires_grad(true);
    const Tensor y = multiply(relu(x), sigmoid(x));
  }
  EXPECT_EQ(in_use(), before);
}

TEST(Tape, DeepGraphsNeedNoStack) {
  constexpr int depth = 100'000;
  Tensor x = leaf(1);
  const auto chain = [&] {
    Tensor y = x;
    for (int i = 0; i < depth; ++i) y = shift(y, 1);
    return y;
  };
  chain();  // dropped without a backward
  Tape::backward(chain());
  EXPECT_EQ(x.grad().item(), 1);
  int times = 0;
  Tensor y = x;
  for (int i = 0; i < depth; ++i) y = doubled(y, &times);
  y = {};
}

TEST(FiniteCheck, NamesTheOpAndTheScope) {
  const FiniteCheckGuard guard;
  Tensor x = leaf(0);
  const ScopeName outer("layer1");
  const auto message = [&](auto&& call) { return message_of<NumericError>(call); };
  {
    const ScopeName inner("conv1");
    EXPECT_EQ(ScopeName::current(), "layer1.conv1");
    const std::string text = message([&] { divide(Tensor::scalar(1), x); });
    EXPECT_EQ(text.rfind("[divide] ", 0), 0U) << text;
    EXPECT_NE(text.find("layer1.conv1"), std::string::npos) << text;
    EXPECT_NE(text.find("inf"), std::string::npos) << text;
  }
  EXPECT_EQ(ScopeName::current(), "layer1");
  const Tensor tiny = leaf(1e-30F);
  const Tensor y = divide(Tensor::scalar(1e-20F), tiny);  // finite, but its derivative isn't
  const std::string text = message([&] { Tape::backward(y); });
  EXPECT_NE(text.find("[divide] first non-finite value appears in the gradient of its input 1"),
            std::string::npos)
      << text;
}

TEST(FiniteCheck, IsOffWithoutTheGuard) {
  EXPECT_NO_THROW(divide(Tensor::scalar(1), Tensor::scalar(0)));
}

}  // namespace
}  // namespace qtrain
