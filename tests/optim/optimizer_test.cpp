// Optimizers against the same definitions coded again, in double precision and without any of the engine.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/optim/adam.h"
#include "engine/optim/rmsprop.h"
#include "engine/optim/sgd.h"

namespace qtrain {
namespace {

using Values = std::vector<double>;
constexpr std::size_t count = 257;
constexpr int steps = 60;

Values gradient_of_step(int step) {
  RandomStream random(11, RandomPurpose::user, 0, static_cast<std::uint64_t>(step));
  Values g(count);
  for (double& v : g) v = static_cast<double>(static_cast<float>(random.normal()));
  return g;
}

Tensor to_tensor(const Values& values) {
  return Tensor::from_values({static_cast<std::int64_t>(values.size())},
                             std::vector<float>(values.begin(), values.end()));
}

Tensor start() {
  Values p(count);
  for (std::size_t i = 0; i < count; ++i) p[i] = 0.01 * static_cast<double>(i) - 1;
  Tensor t = to_tensor(p);
  t.set_requires_grad(true);
  return t;
}

// Runs an optimizer and its reference, one element at a time: reference(p, g, step) with step from 1.
template <class MakeOptimizer, class MakeReference>
void expect_same(MakeOptimizer&& make_optimizer, MakeReference&& make_reference, double tolerance = 2e-5) {
  const Tensor p = start();
  const auto optimizer = make_optimizer(NamedTensors{{"p", p}});
  for (int s = 1; s <= steps; ++s) {
    p.set_grad(to_tensor(gradient_of_step(s)));
    optimizer->step();
  }
  const std::vector<float> initial = start().values();
  const std::vector<float> got = p.values();
  for (std::size_t i = 0; i < count; ++i) {
    auto reference = make_reference();
    auto expected = static_cast<double>(initial[i]);
    for (int s = 1; s <= steps; ++s) expected = reference(expected, gradient_of_step(s)[i], s);
    ASSERT_NEAR(got[i], expected, tolerance * (1 + std::fabs(expected))) << "element " << i;
    if (i == 3) i = count - 4;  // the ends: the middle is the same loop
  }
}

TEST(Sgd, EveryCombinationOfOptions) {
  for (const double momentum : {0.0, 0.9})
    for (const double dampening : {0.0, 0.3})
      for (const bool nesterov : {false, true})
        for (const double decay : {0.0, 0.01}) {
          if (nesterov && (momentum == 0 || dampening != 0)) continue;
          SCOPED_TRACE(testing::Message() << momentum << " " << dampening << " " << nesterov << " " << decay);
          expect_same(
              [&](NamedTensors p) {
                return std::make_unique<SGD>(
                    std::vector{ParameterGroup{.parameters = std::move(p), .weight_decay = decay}},
                    SgdOptions{.learning_rate = 0.02,
                               .momentum = momentum,
                               .dampening = dampening,
                               .nesterov = nesterov});
              },
              [&] {
                return [=, v = 0.0](double p, double g, int step) mutable {
                  g += decay * p;
                  if (momentum == 0) return p - 0.02 * g;
                  v = step == 1 ? g : momentum * v + (1 - dampening) * g;
                  return p - 0.02 * (nesterov ? g + momentum * v : v);
                };
              });
        }
}

// p = 1, g = 0.5, lr 0.1, momentum 0.9, weight decay 0.1; worked out by hand.
TEST(Sgd, TwoStepsByHand) {
  for (const bool nesterov : {false, true}) {
    Tensor p = Tensor::full({1}, 1);
    SGD sgd({{.parameters = {{"p", p}}, .weight_decay = 0.1}},
            {.learning_rate = 0.1, .momentum = 0.9, .nesterov = nesterov});
    p.set_grad(Tensor::full({1}, 0.5F));
    sgd.step();  // d = 0.6, v = 0.6
    EXPECT_NEAR(p.values()[0], nesterov ? 1 - 0.1 * (0.6 + 0.54) : 1 - 0.06, 1e-6);
    sgd.step();
    const double d = 0.5 + 0.1 * (nesterov ? 0.886 : 0.94);
    const double v = 0.54 + d;
    EXPECT_NEAR(p.values()[0], nesterov ? 0.886 - 0.1 * (d + 0.9 * v) : 0.94 - 0.1 * v, 1e-6);
  }
}

template <class T>
void check_adam(bool decoupled) {
  for (const double decay : {0.0, 0.05})
    for (const double beta2 : {0.9, 0.999}) {
      SCOPED_TRACE(testing::Message() << decay << " " << beta2);
      expect_same(
          [&](NamedTensors p) {
            return std::make_unique<T>(
                std::vector{ParameterGroup{.parameters = std::move(p), .weight_decay = decay}},
                AdamOptions{.learning_rate = 0.01, .beta1 = 0.8, .beta2 = beta2, .epsilon = 1e-6});
          },
          [&] {
            return [=, m = 0.0, s = 0.0](double p, double g, int step) mutable {
              if (decoupled)
                p -= 0.01 * decay * p;
              else
                g += decay * p;
              m = 0.8 * m + 0.2 * g;
              s = beta2 * s + (1 - beta2) * g * g;
              const double m_hat = m / (1 - std::pow(0.8, step));
              const double s_hat = s / (1 - std::pow(beta2, step));
              return p - 0.01 * m_hat / (std::sqrt(s_hat) + 1e-6);
            };
          });
    }
}

TEST(Adam, EveryCombinationOfOptions) {
  check_adam<Adam>(false);
}
TEST(AdamW, EveryCombinationOfOptions) {
  check_adam<AdamW>(true);
}

TEST(RmsProp, EveryCombinationOfOptions) {
  for (const bool centered : {false, true})
    for (const double momentum : {0.0, 0.7})
      for (const double decay : {0.0, 0.05}) {
        SCOPED_TRACE(testing::Message() << centered << " " << momentum << " " << decay);
        expect_same(
            [&](NamedTensors p) {
              return std::make_unique<RMSprop>(
                  std::vector{ParameterGroup{.parameters = std::move(p), .weight_decay = decay}},
                  RmsPropOptions{.learning_rate = 0.002,
                                 .alpha = 0.9,
                                 .epsilon = 1e-3,
                                 .momentum = momentum,
                                 .centered = centered});
            },
            [&] {
              return [=, s = 0.0, a = 0.0, v = 0.0](double p, double g, int) mutable {
                g += decay * p;
                s = 0.9 * s + 0.1 * g * g;
                a = 0.9 * a + 0.1 * g;
                const double root = std::sqrt(centered ? s - a * a : s) + 1e-3;
                v = momentum * v + g / root;
                return p - 0.002 * v;
              };
            },
            centered ? 2e-4 : 2e-5);  // s - a^2 cancels at the first step, when it is 0.09 g^2
      }
}

TEST(RmsProp, CenteredNeverTakesTheRootOfANegativeNumber) {
  Tensor p = Tensor::full({64}, 1);
  RMSprop rms({{.parameters = {{"p", p}}}}, {.learning_rate = 1e-3, .alpha = 0.5, .centered = true});
  for (int i = 0; i < 200; ++i) {
    p.set_grad(Tensor::full({64}, 0.1F));  // a constant gradient: s -> a^2
    rms.step();
    ASSERT_TRUE(std::isfinite(p.values()[0])) << i;
  }
}

TEST(Optimizer, GroupsHaveTheirOwnSettings) {
  Tensor a = Tensor::full({1}, 1);
  Tensor b = Tensor::full({1}, 1);
  SGD sgd({{.parameters = {{"a", a}}, .learning_rate_factor = 2, .weight_decay = 0},
           {.parameters = {{"b", b}}, .weight_decay = 1}},
          {.learning_rate = 0.1});
  a.set_grad(Tensor::full({1}, 1));
  b.set_grad(Tensor::full({1}, 1));
  sgd.step();
  EXPECT_FLOAT_EQ(a.values()[0], 0.8F);
  EXPECT_FLOAT_EQ(b.values()[0], 0.8F);
  sgd.set_learning_rate(0);
  sgd.step();
  EXPECT_FLOAT_EQ(a.values()[0], 0.8F);
}

TEST(Optimizer, SkipsParametersWithoutGradient) {
  Tensor a = Tensor::full({1}, 1);
  Tensor b = Tensor::full({1}, 1);
  Adam adam({{.parameters = {{"a", a}, {"b", b}}, .weight_decay = 1}}, {});
  a.set_grad(Tensor::full({1}, 1));
  const std::uint64_t before = a.storage_version();
  adam.step();
  EXPECT_GT(a.storage_version(), before);
  EXPECT_EQ(b.values()[0], 1.0F);
  ASSERT_EQ(adam.state().size(), 3U);
  EXPECT_EQ(adam.state()[0].name, "exp_avg.a");
  EXPECT_EQ(adam.state()[2].name, "step.a");
  adam.zero_grad();
  EXPECT_FALSE(a.grad().defined());
}

template <class T, class Options>
void check_resume(const Options& options) {
  Tensor p = start();
  Tensor q = start();
  T straight({{.parameters = {{"p", p}}, .weight_decay = 0.01}}, options);
  const auto run = [](T& optimizer, const Tensor& parameter, int from, int to) {
    for (int s = from; s < to; ++s) {
      parameter.set_grad(to_tensor(gradient_of_step(s)));
      optimizer.step();
    }
  };
  run(straight, p, 1, 10);
  T resumed({{.parameters = {{"p", q}}, .weight_decay = 0.01}}, options);
  q.copy_from(p);
  resumed.load_state(straight.state());
  run(straight, p, 10, 20);
  run(resumed, q, 10, 20);
  EXPECT_EQ(p.values(), q.values());
}

TEST(Optimizer, ResumesBitForBit) {
  check_resume<SGD>(SgdOptions{.momentum = 0.9, .dampening = 0.1});
  check_resume<SGD>(SgdOptions{});
  check_resume<Adam>(AdamOptions{});
  check_resume<AdamW>(AdamOptions{});
  check_resume<RMSprop>(RmsPropOptions{.momentum = 0.9, .centered = true});
}

TEST(Optimizer, RefusesStateThatDoesNotFit) {
  Tensor p = start();
  const std::vector<ParameterGroup> groups{{.parameters = {{"p", p}}}};
  SGD sgd(groups, {.momentum = 0.9});
  p.set_grad(to_tensor(gradient_of_step(1)));
  sgd.step();
  const NamedTensors good = sgd.state();
  const std::vector<float> buffer = good[0].tensor.values();

  EXPECT_THROW(Adam(groups, {}).load_state(good), ValueError);
  NamedTensors bad = good;
  bad[0].name = "momentum_buffer.q";
  EXPECT_THROW(sgd.load_state(bad), ValueError);
  bad = good;
  bad.push_back({"exp_avg.p", Tensor::zeros({1})});
  EXPECT_THROW(sgd.load_state(bad), ValueError);
  bad = good;
  bad[0].tensor = Tensor::zeros({3});
  EXPECT_THROW(sgd.load_state(bad), ValueError);
  bad = good;
  bad.pop_back();  // the step count
  EXPECT_THROW(sgd.load_state(bad), ValueError);
  bad = good;
  bad.push_back(good[0]);
  EXPECT_THROW(sgd.load_state(bad), ValueError);
  bad = good;
  bad[1].tensor = Tensor::zeros({}, DType::i64);
  EXPECT_THROW(sgd.load_state(bad), ValueError);
  EXPECT_EQ(sgd.state()[0].tensor.values(), buffer) << "a refused load changes nothing";

  sgd.load_state({});
  EXPECT_TRUE(sgd.state().empty());
}

TEST(Optimizer, RefusesBadArguments) {
  Tensor p = start();
  const std::vector<ParameterGroup> groups{{.parameters = {{"p", p}}}};
  EXPECT_THROW(SGD({}, {}), ValueError);
  EXPECT_THROW(SGD({{.parameters = {{"p", p}, {"q", p}}}}, {}), ValueError);
  EXPECT_THROW(SGD({{.parameters = {{"p", p}, {"p", start()}}}}, {}), ValueError);
  EXPECT_THROW(SGD({{.parameters = {{"p", Tensor{}}}}}, {}), ValueError);
  EXPECT_THROW(SGD({{.parameters = {{"p", p}}, .weight_decay = -1}}, {}), ValueError);
  EXPECT_THROW(SGD(groups, {.learning_rate = -1}), ValueError);
  EXPECT_THROW(SGD(groups, {.learning_rate = NAN}), ValueError);
  EXPECT_THROW(SGD(groups, {.momentum = -0.1}), ValueError);
  EXPECT_THROW(SGD(groups, {.nesterov = true}), ValueError);
  EXPECT_THROW(SGD(groups, {.momentum = 0.9, .dampening = 0.1, .nesterov = true}), ValueError);
  EXPECT_THROW(Adam(groups, {.beta1 = 1}), ValueError);
  EXPECT_THROW(AdamW(groups, {.beta2 = -0.5}), ValueError);
  EXPECT_THROW(RMSprop(groups, {.alpha = -1}), ValueError);
  SGD sgd(groups, {});
  EXPECT_THROW(sgd.set_learning_rate(INFINITY), ValueError);
}

}  // namespace
}  // namespace qtrain
