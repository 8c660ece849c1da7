// Who says that the next step does what the last one did, is believed: a step that is replayed on a GPU
// doesn't ask the host again. Nothing of such a step may depend on how often it was made.
#include <gtest/gtest.h>

#include <cstring>

#include "engine/autograd/tape.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/reduce.h"
#include "tests/quant/subjects.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::normal_values;

class Steadiness : public testing::TestWithParam<Subject> {
 protected:
  // A training step on always the same input; everything that comes out of it, and what it leaves behind.
  std::vector<std::vector<float>> step() {
    Tensor x = input_.detach();
    x.set_requires_grad(true);
    if (subject_.role == Role::bias) quantizer_->follow_weight(weight_);
    const Tensor y = quantizer_->forward(x);
    std::vector<std::vector<float>> results = {y.values()};
    const Tensor own_loss = quantizer_->take_loss();
    const Tensor loss = sum(multiply(y, upstream_));
    Tape::backward(own_loss.defined() ? add(loss, own_loss) : loss);
    if (x.grad().defined()) results.push_back(x.grad().values());
    for (const Tensor& p : quantizer_->parameters()) {
      if (p.grad().defined()) results.push_back(p.grad().values());
      p.set_grad({});
    }
    for (const NamedTensor& t : quantizer_->state_dict())
      if (t.tensor.dtype() == DType::f32) results.push_back(t.tensor.values());
    return results;
  }

  Subject subject_ = GetParam();
  std::shared_ptr<Quantizer> quantizer_ = subject_.make_usual();
  Tensor input_, weight_, upstream_;
};

TEST_P(Steadiness, SteadyStepsDoNotDependOnTheirNumber) {
  const auto normal = [](const Shape& shape, double deviation, std::uint64_t seed) {
    return Tensor::from_values(shape,
                               normal_values(static_cast<std::size_t>(shape.numel()), deviation, seed));
  };
  input_ = normal(usual_shape(subject_), usual_deviation(subject_), 1);
  upstream_ = normal(input_.shape(), 1, 2);
  weight_ = normal({8, 3, 3, 3}, 0.3, 3);
  step();
  step();
  const std::vector<Tensor> counters = quantizer_->counters();
  std::vector<std::int64_t> before;
  for (const Tensor& c : counters) before.push_back(*c.data<std::int64_t>());
  step();
  EXPECT_EQ(quantizer_->is_steady(), !subject_.option_is("custom_update", "true"));
  if (!quantizer_->is_steady()) return;

  NamedTensors state;
  for (const NamedTensor& t : quantizer_->state_dict())
    if (t.tensor.dtype() == DType::f32) state.push_back({t.name, t.tensor.clone()});
  const std::vector<std::vector<float>> first = step();
  quantizer_->load_state_dict(state, /*strict=*/false);
  // As if a thousand replays had been made in between.
  for (std::size_t i = 0; i < counters.size(); ++i) {
    std::int64_t& now = *counters[i].data<std::int64_t>();
    now += 1000 * (now - before[i]);
  }
  const std::vector<std::vector<float>> later = step();
  ASSERT_EQ(first.size(), later.size());
  for (std::size_t i = 0; i < first.size(); ++i)
    EXPECT_EQ(std::memcmp(first[i].data(), later[i].data(), first[i].size() * sizeof(float)), 0)
        << "result " << i;
}

INSTANTIATE_TEST_SUITE_P(Quantizers, Steadiness, testing::ValuesIn(subjects()),
                         [](const auto& subject) { return subject.param.name(); });

}  // namespace
}  // namespace qtrain::quant
