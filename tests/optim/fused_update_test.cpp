// One pass over all parameters: what each of them gets, and the two halves of a step.
#include <gtest/gtest.h>

#include "engine/core/error.h"
#include "engine/core/host_read.h"
#include "engine/optim/adam.h"
#include "engine/optim/rmsprop.h"
#include "engine/optim/sgd.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::random_tensor;

constexpr std::int64_t counts[] = {3, 20000, 1, 257};
constexpr int last_step = 8;

Tensor gradient(std::size_t parameter, int step) {
  return random_tensor({counts[parameter]}, 1000 * parameter + static_cast<std::uint64_t>(step));
}

std::vector<Tensor> start() {
  std::vector<Tensor> parameters;
  for (std::size_t i = 0; i < std::size(counts); ++i) parameters.push_back(random_tensor({counts[i]}, 7 + i));
  return parameters;
}

std::vector<ParameterGroup> groups_of(const std::vector<Tensor>& p) {
  return {{.parameters = {{"a", p[0]}, {"b", p[1]}}, .learning_rate_factor = 0.5, .weight_decay = 0.01},
          {.parameters = {{"c", p[2]}, {"d", p[3]}}}};
}

// "c" joins late and sometimes rests; all others take part in every step.
bool takes_part(std::size_t parameter, int step) {
  return parameter != 2 || (step > 2 && step != 5);
}

using MakeOptimizer = std::function<std::unique_ptr<Optimizer>(std::vector<ParameterGroup>)>;
const std::vector<MakeOptimizer> kinds = {
    [](auto g) { return std::make_unique<SGD>(std::move(g), SgdOptions{.learning_rate = 0.1}); },
    [](auto g) {
      return std::make_unique<SGD>(std::move(g),
                                   SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.2});
    },
    [](auto g) { return std::make_unique<Adam>(std::move(g), AdamOptions{}); },
    [](auto g) { return std::make_unique<AdamW>(std::move(g), AdamOptions{}); },
    [](auto g) {
      return std::make_unique<RMSprop>(std::move(g), RmsPropOptions{.momentum = 0.9, .centered = true});
    },
};

double rate_of(int step) {
  return 0.1 / step;
}

// Every parameter in an optimizer of its own, which takes only the steps in which it takes part.
std::vector<Tensor> one_by_one(const MakeOptimizer& make) {
  std::vector<Tensor> p = start();
  const std::vector<ParameterGroup> groups = groups_of(p);
  for (std::size_t i = 0; i < p.size(); ++i) {
    ParameterGroup alone = groups[i / 2];
    alone.parameters = {{"p", p[i]}};
    const auto optimizer = make({alone});
    for (int s = 1; s <= last_step; ++s) {
      if (!takes_part(i, s)) continue;
      p[i].set_grad(gradient(i, s));
      optimizer->set_learning_rate(rate_of(s));
      optimizer->step();
    }
  }
  return p;
}

TEST(FusedUpdate, EachParameterIsUpdatedAsIfItWereAlone) {
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    SCOPED_TRACE(k);
    const std::vector<Tensor> expected = one_by_one(kinds[k]);
    const std::vector<Tensor> p = start();
    const auto optimizer = kinds[k](groups_of(p));
    for (int s = 1; s <= last_step; ++s) {
      optimizer->zero_grad();
      for (std::size_t i = 0; i < p.size(); ++i)
        if (takes_part(i, s)) p[i].set_grad(gradient(i, s));
      optimizer->set_learning_rate(rate_of(s));
      optimizer->step();
    }
    for (std::size_t i = 0; i < p.size(); ++i)
      EXPECT_TRUE(identical(p[i].values(), expected[i].values())) << "parameter " << i;
  }
}

// What a device graph does: apply() is recorded once, and what it queued runs again after each
// prepare_step(). On the CPU the same pass over the same places, with the rules as they are then, stands for
// that.
TEST(FusedUpdate, ARecordedUpdateTakesTheNumbersOfItsStep) {
  struct Recorder final : Adam {
    using Adam::Adam;
    struct Pass {
      std::function<void()> again;
    };
    std::shared_ptr<Pass> pass = std::make_shared<Pass>();
    struct Rule final : FusedRule {
      std::unique_ptr<FusedRule> inner;
      std::shared_ptr<Pass> pass;
      std::size_t bytes() const override { return inner->bytes(); }
      void write(const UpdateSettings& s, void* to) const override { inner->write(s, to); }
      void run(const Stream& stream, std::span<const UpdateTensors> all, const void* rules) const override {
        inner->run(stream, all, rules);
        struct Kept {
          Tensor parameter, gradient;
          std::vector<Tensor> state;
          std::int64_t rule;
        };
        std::vector<Kept> kept;
        for (const UpdateTensors& t : all)
          kept.push_back({t.parameter, t.gradient, {t.state.begin(), t.state.end()}, t.rule});
        pass->again = [this, stream, kept, rules] {
          std::vector<UpdateTensors> same;
          for (const Kept& t : kept) same.push_back({t.parameter, t.gradient, t.state, t.rule});
          inner->run(stream, same, rules);
        };
      }
    };
    std::unique_ptr<FusedRule> make_rule() const override {
      auto rule = std::make_unique<Rule>();
      rule->inner = Adam::make_rule();
      rule->pass = pass;
      return rule;
    }
  };
  const std::vector<Tensor> p = start();
  const std::vector<Tensor> q = start();
  Adam eager(groups_of(p), {});
  Recorder recorded(groups_of(q), {});
  std::vector<Tensor> gradients;
  for (const Tensor& parameter : q) gradients.push_back(Tensor::empty_like(parameter));
  for (int s = 1; s <= last_step; ++s) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      p[i].set_grad(gradient(i, s));
      gradients[i].copy_from(gradient(i, s));
      q[i].set_grad(gradients[i]);
    }
    for (Optimizer* optimizer : {static_cast<Optimizer*>(&eager), static_cast<Optimizer*>(&recorded)})
      optimizer->set_learning_rate(rate_of(s));
    eager.step();
    recorded.prepare_step();
    if (s <= 2) {
      EXPECT_EQ(recorded.apply(), s == 2) << "the first step makes the state";
    } else {
      recorded.pass->again();
      for (const Tensor& steps : recorded.counters()) ++*steps.data<std::int64_t>();
    }
  }
  for (std::size_t i = 0; i < p.size(); ++i)
    EXPECT_TRUE(identical(p[i].values(), q[i].values())) << "parameter " << i;
  const NamedTensors a = eager.state();
  const NamedTensors b = recorded.state();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    if (a[i].tensor.dtype() == DType::i64)
      EXPECT_EQ(a[i].tensor.values<std::int64_t>(), b[i].tensor.values<std::int64_t>()) << a[i].name;
    else
      EXPECT_TRUE(identical(a[i].tensor.values(), b[i].tensor.values())) << a[i].name;
  }
}

TEST(FusedUpdate, ApplyTellsWhetherItCanBeRunAgain) {
  const std::vector<Tensor> p = start();
  SGD sgd(groups_of(p), {.learning_rate = 0.1, .momentum = 0.9});
  const auto steps_of = [&](const char* name) {
    for (const NamedTensor& t : sgd.state())
      if (t.name == name) return t.tensor.values<std::int64_t>().front();
    return std::int64_t{0};
  };
  const auto step = [&](bool with_c) {
    sgd.zero_grad();
    for (std::size_t i = 0; i < p.size(); ++i)
      if (i != 2 || with_c) p[i].set_grad(gradient(i, 1));
    sgd.prepare_step();
    return sgd.apply();
  };
  EXPECT_FALSE(step(false)) << "it makes the state";
  EXPECT_TRUE(step(false));
  EXPECT_FALSE(step(true)) << "one joins";
  EXPECT_TRUE(step(true));
  EXPECT_TRUE(step(false)) << "one rests";
  EXPECT_EQ(steps_of("step.a"), 5);
  EXPECT_EQ(steps_of("step.c"), 2) << "a step that was only prepared doesn't count";
  sgd.prepare_step();
  sgd.set_learning_rate(0.01);
  EXPECT_FALSE(sgd.apply()) << "another rate than the prepared one";
  EXPECT_FALSE(sgd.apply()) << "not prepared at all";
  EXPECT_EQ(steps_of("step.a"), 7);
  sgd.prepare_step();
  sgd.load_state(sgd.state());
  EXPECT_FALSE(sgd.apply()) << "the numbers were those of another state";
  EXPECT_EQ(steps_of("step.a"), 8);
}

TEST(FusedUpdate, TheHostReadsNothing) {
  const std::vector<Tensor> p = start();
  Adam adam(groups_of(p), {});
  for (std::size_t i = 0; i < p.size(); ++i) p[i].set_grad(gradient(i, 1));
  const std::uint64_t reads = host_read_count();
  adam.step();
  adam.step();
  EXPECT_EQ(host_read_count(), reads);
}

}  // namespace
}  // namespace qtrain
