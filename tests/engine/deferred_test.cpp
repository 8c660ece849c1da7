// Tensors whose elements are computed when they are first asked for, and gradients that are.
#include "engine/autograd/deferred_gradient.h"
#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/batch_norm_fusion.h"
#include "engine/ops/reduce.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

// Writes value, value + 1, ... to each of its results.
class Counting final : public Deferred {
 public:
  explicit Counting(float value) : value_(value) {}
  static std::vector<Tensor> make(const Shape& shape, std::size_t results, float value,
                                  std::shared_ptr<Counting>* maker = nullptr) {
    const auto work = std::make_shared<Counting>(value);
    std::vector<Tensor> tensors;
    for (std::size_t i = 0; i < results; ++i) {
      tensors.push_back(Tensor::deferred(shape, DType::f32, {}, work));
      work->owed.emplace_back(tensors.back());
    }
    if (maker != nullptr) *maker = work;
    return tensors;
  }
  void compute() override {
    ++runs;
    for (const Owed& result : owed) {
      const Tensor t = result.receive();
      if (!t.defined()) continue;
      ++written;
      for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = value_ + static_cast<float>(i);
    }
  }
  int runs = 0, written = 0;
  std::vector<Owed> owed;

 private:
  float value_;
};

std::size_t in_use() {
  return backend({}).allocator().statistics().in_use;
}

TEST(Deferred, TakesMemoryAndRunsWhenTouched) {
  const std::size_t before = in_use();
  std::shared_ptr<Counting> work;
  const Tensor t = Counting::make({2, 3}, 1, 5, &work)[0];
  EXPECT_EQ(t.shape(), Shape({2, 3}));
  EXPECT_EQ(t.bytes(), 24U);
  EXPECT_NE(t.pending(), nullptr);
  EXPECT_EQ(in_use(), before);
  EXPECT_EQ(work->runs, 0);
  EXPECT_EQ(t.values(), std::vector<float>({5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(t.pending(), nullptr);
  EXPECT_GE(in_use(), before + 24);
  EXPECT_EQ(t.values()[0], 5);
  EXPECT_EQ(work->runs, 1);
}

TEST(Deferred, ViewsShareTheWork) {
  std::shared_ptr<Counting> work;
  const Tensor t = Counting::make({6}, 1, 1, &work)[0];
  const Tensor view = t.view({2, 3}), detached = t.detach();
  EXPECT_EQ(work->runs, 0);
  EXPECT_EQ(view.values()[5], 6);
  EXPECT_EQ(detached.pending(), nullptr);
  EXPECT_EQ(detached.values()[5], 6);
  EXPECT_EQ(t.clone().values()[0], 1);
  EXPECT_EQ(work->runs, 1);
}

TEST(Deferred, OneRunGivesAllResultsThatAreStillWanted) {
  std::shared_ptr<Counting> work;
  std::vector<Tensor> t = Counting::make({4}, 3, 2, &work);
  t.pop_back();
  EXPECT_EQ(t[1].values()[3], 5);
  EXPECT_EQ(t[0].pending(), nullptr);
  EXPECT_EQ(work->written, 2);
  EXPECT_FALSE(work->owed[0].receive().defined());  // only once
}

TEST(Deferred, WorkGoesWithItsTensor) {
  std::weak_ptr<Counting> alive;
  {
    std::shared_ptr<Counting> work;
    const Tensor t = Counting::make({4}, 1, 2, &work)[0];
    alive = work;
  }
  EXPECT_TRUE(alive.expired());
}

TEST(Deferred, ChangesInPlaceComeAfterTheWork) {
  const Tensor t = Counting::make({3}, 1, 1)[0];
  add_in_place(t, Tensor::full({3}, 10));
  EXPECT_EQ(t.values(), std::vector<float>({11, 12, 13}));
}

TEST(Deferred, SavedTensorsStayPending) {
  const Tensor t = Counting::make({3}, 1, 1)[0];
  SavedTensor saved("t");
  saved.save(t);
  EXPECT_EQ(saved.bytes(), 0U);
  EXPECT_NE(saved.get().pending(), nullptr);
  EXPECT_EQ(t.values()[2], 3);
  EXPECT_EQ(saved.bytes(), 12U);
}

// -- gradients

class Ones final : public DeferredGradient {
 public:
  static Tensor make(const Shape& shape) {
    const auto work = std::make_shared<Ones>();
    Tensor t = Tensor::deferred(shape, DType::f32, {}, work);
    work->owed_ = Owed(t);
    return t;
  }
  void compute() override {
    const Tensor t = owed_.receive();
    t.copy_from(Tensor::full(t.shape(), 1));
    if (addend().defined()) add_in_place(t, addend());
  }

 private:
  Owed owed_;
};

TEST(DeferredGradient, AccumulationKeepsItPending) {
  for (const bool pending_first : {false, true}) {
    Tensor total, other = Tensor::full({3}, 2);
    accumulate(total, pending_first ? Ones::make({3}) : other);
    accumulate(total, pending_first ? other : Ones::make({3}));
    EXPECT_NE(total.pending(), nullptr);
    accumulate(total, Ones::make({3}));
    accumulate(total, Tensor::full({3}, 4));
    EXPECT_NE(total.pending(), nullptr);
    EXPECT_EQ(total.values(), std::vector<float>(3, 8));
    EXPECT_EQ(other.values(), std::vector<float>(3, 2));
  }
}

TEST(DeferredGradient, WhatOthersSeeIsNotChanged) {
  const Tensor shared = Ones::make({2});
  Tensor total = shared;
  accumulate(total, Tensor::full({2}, 5));
  EXPECT_EQ(total.values(), std::vector<float>(2, 6));
  EXPECT_EQ(shared.values(), std::vector<float>(2, 1));
}

struct GivesPending final : Node {
  std::string_view name() const override { return "gives pending"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    return {Ones::make(grad_outputs[0].shape())};
  }
};

TEST(DeferredGradient, LeavesGetItComputed) {
  Tensor leaf = Tensor::full({3}, 1);
  leaf.set_requires_grad(true);
  for (const float expected : {2.0F, 4.0F}) {  // the second backward adds to the first
    const auto once = [&] {
      return Tape::record<GivesPending>("gives pending", {leaf}, Tensor::full({3}, 1), [](GivesPending&) {});
    };
    Tape::backward(sum(add(once(), once())));
    EXPECT_EQ(leaf.grad().pending(), nullptr);
    EXPECT_EQ(leaf.grad().values(), std::vector<float>(3, expected));
  }
}

// -- batch norm

struct Norm {
  Tensor x, residual;
  BatchNormState state;
  Norm()
      : x(Tensor::from_values({4, 5, 3, 3}, random_values(180, 1))),
        residual(Tensor::from_values({4, 5, 3, 3}, random_values(180, 2))),
        state{Tensor::from_values({5}, random_values(5, 3)), Tensor::from_values({5}, random_values(5, 4)),
              Tensor::zeros({5}), Tensor::full({5}, 1)} {}
  Tensor run(bool defer, bool training = true) const {
    const BatchNormOptions options{.relu = true,
                                   .fusion = defer ? std::make_shared<BatchNormFusion>() : nullptr};
    return training ? batch_norm_training(x, state, options, residual)
                    : batch_norm_evaluation(x, state, options, residual);
  }
};

TEST(DeferredBatchNorm, LaterChangesOfParametersDontCount) {
  for (const bool training : {true, false}) {
    const std::vector<float> expected = Norm().run(false, training).values();
    const Norm norm;
    const Tensor y = norm.run(true, training);
    for (const Tensor& t :
         {norm.state.gamma, norm.state.beta, norm.state.running_mean, norm.state.running_variance})
      t.copy_from(Tensor::full({5}, 3));
    EXPECT_NE(y.pending(), nullptr);
    EXPECT_EQ(y.values(), expected);
  }
}

TEST(DeferredBatchNorm, ChangedInputIsRefused) {
  for (const bool residual : {false, true}) {
    const Norm norm;
    const Tensor y = norm.run(true);
    (residual ? norm.residual : norm.x).copy_from(Tensor::zeros({4, 5, 3, 3}));
    EXPECT_THROW(y.values(), AutogradError);
  }
}

TEST(DeferredBatchNorm, FiniteChecksNameTheRightOp) {
  Norm norm;
  norm.x.data<float>()[7] = NAN;
  const FiniteCheckGuard guard;
  try {
    norm.run(true);
    FAIL();
  } catch (const NumericError& e) {
    EXPECT_NE(std::string(e.what()).find("batch_norm"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace qtrain
