// Optimizers and clipping on every device against the CPU: several steps over parameters of many sizes, one
// of which joins late.
#include <gtest/gtest.h>

#include <functional>

#include "engine/optim/adam.h"
#include "engine/optim/clip.h"
#include "engine/optim/rmsprop.h"
#include "engine/optim/sgd.h"
#include "tests/devices.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::near;
using testing_support::OnDevice;
using testing_support::random_tensor;

using Groups = std::vector<ParameterGroup>;

struct OptimizerCase {
  std::string name;
  std::function<std::unique_ptr<Optimizer>(Groups)> make;
  std::function<Tensor(std::span<const Tensor>)> clip = nullptr;  // returns what it has measured, if anything
};

std::ostream& operator<<(std::ostream& out, const OptimizerCase& c) {
  return out << c.name;
}

template <class T, class Options>
OptimizerCase rule(const std::string& name, const Options& options) {
  return {.name = name,
          .make = [options](Groups groups) { return std::make_unique<T>(std::move(groups), options); }};
}

std::vector<OptimizerCase> cases() {
  std::vector<OptimizerCase> all = {
      rule<SGD>("sgd", SgdOptions{}),
      rule<SGD>("sgd_dampened", SgdOptions{.momentum = 0.9, .dampening = 0.2}),
      rule<SGD>("sgd_nesterov", SgdOptions{.momentum = 0.9, .nesterov = true}),
      rule<Adam>("adam", AdamOptions{}),
      rule<AdamW>("adamw", AdamOptions{}),
      rule<RMSprop>("rmsprop", RmsPropOptions{}),
      rule<RMSprop>("rmsprop_momentum", RmsPropOptions{.momentum = 0.9}),
      rule<RMSprop>("rmsprop_centered", RmsPropOptions{.centered = true}),
      rule<RMSprop>("rmsprop_centered_momentum", RmsPropOptions{.momentum = 0.9, .centered = true}),
  };
  for (const float limit : {1.0F, 1e6F}) {
    all.push_back(rule<SGD>(limit > 1 ? "norm_below_limit" : "clipped_norm", SgdOptions{}));
    all.back().clip = [limit](std::span<const Tensor> p) { return clip_gradient_norm(p, limit); };
  }
  all.push_back(rule<SGD>("norm", SgdOptions{}));
  all.back().clip = [](std::span<const Tensor> p) { return gradient_norm(p); };
  all.push_back(rule<SGD>("clipped_values", SgdOptions{}));
  all.back().clip = [](std::span<const Tensor> p) {
    clip_gradient_values(p, 0.5F);
    return Tensor();
  };
  return all;
}

using Results = std::vector<std::pair<std::string, std::vector<float>>>;

Results train(const OptimizerCase& c, Device device) {
  constexpr std::int64_t counts[] = {3, 20'000, 1, 257, 8'193};
  NamedTensors all;
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < std::size(counts); ++i) {
    tensors.push_back(random_tensor({counts[i]}, 7 + i, {}, device));
    all.push_back({"p" + std::to_string(i), tensors.back()});
  }
  const auto optimizer =
      c.make({{.parameters = {all[0], all[1]}, .learning_rate_factor = 0.5, .weight_decay = 0.01},
              {.parameters = {all[2], all[3], all[4]}}});
  Results results;
  for (int step = 1; step <= 8; ++step) {
    optimizer->zero_grad();
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (i != 2 || (step > 2 && step != 5))
        tensors[i].set_grad(
            random_tensor({counts[i]}, 1000 * i + static_cast<std::uint64_t>(step), {}, device));
    const Tensor measured = c.clip ? c.clip(tensors) : Tensor();
    if (measured.defined()) results.emplace_back("norm of step " + std::to_string(step), measured.values());
    optimizer->set_learning_rate(0.1 / step);
    optimizer->step();
  }
  for (const NamedTensor& p : all) results.emplace_back(p.name, p.tensor.values());
  for (const NamedTensor& s : optimizer->state())
    if (s.tensor.dtype() == DType::f32) results.emplace_back(s.name, s.tensor.values());
  return results;
}

class OptimizerParity : public OnDevice<OptimizerCase> {};

TEST_P(OptimizerParity, StepsAsOnTheCpu) {
  const Results got = train(case_, device_);
  const Results want = train(case_, Device{});
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    EXPECT_TRUE(near(got[i].second, want[i].second, 1e-5)) << want[i].first;
  }
}

TEST_P(OptimizerParity, GivesTheSameBitsTwice) {
  const Results first = train(case_, device_);
  const Results second = train(case_, device_);
  ASSERT_EQ(first.size(), second.size());
  for (std::size_t i = 0; i < first.size(); ++i)
    EXPECT_TRUE(identical(first[i].second, second[i].second)) << first[i].first;
}

INSTANTIATE_TEST_SUITE_P(Rules, OptimizerParity, testing_support::on_devices(cases()),
                         testing_support::device_test_name);

// What is compared moves in every case.
TEST(OptimizerParityCheck, ParametersMove) {
  for (const OptimizerCase& c : cases())
    for (const auto& [name, values] : train(c, Device{}))
      if (name == "p0") {
        EXPECT_FALSE(near(values, random_tensor({3}, 7).values(), 1e-3)) << c.name;
      }
}

}  // namespace
}  // namespace qtrain
