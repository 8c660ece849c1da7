// What every quantizer must keep to so that a GPU runs ahead of the host: from the second step on, training
// reads no device value and waits for none, and everything that comes out lives where the input does.
#include <gtest/gtest.h>

#include "engine/autograd/tape.h"
#include "engine/core/host_read.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/reduce.h"
#include "tests/devices.h"
#include "tests/quant/subjects.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::normal_values;
using testing_support::OnDevice;

class DeviceRules : public OnDevice<Subject> {
 protected:
  void set_up() override { quantizer_->to(device_); }

  Tensor normal(const Shape& shape, double deviation, std::uint64_t seed) const {
    return Tensor::from_values(shape, normal_values(static_cast<std::size_t>(shape.numel()), deviation, seed),
                               device_);
  }

  void expect_here(const Tensor& t) const { EXPECT_TRUE(!t.defined() || t.device() == device_) << t.str(); }

  // A step of training, as a network and its optimizer make it.
  void step(const Border& padding) {
    Tensor x = input_.detach();
    x.set_requires_grad(true);
    if (case_.role == Role::bias) quantizer_->follow_weight(weight_);
    const Tensor y = quantizer_->forward(x, padding);
    expect_here(y);
    const Tensor own_loss = quantizer_->take_loss();
    const Tensor loss = own_loss.defined() ? add(sum(y), own_loss) : sum(y);
    Tape::backward(loss);
    expect_here(x.grad());
    quantizer_->before_update();
    for (const Tensor& p : quantizer_->parameters()) {
      expect_here(p.grad());
      p.set_grad({});
    }
    quantizer_->after_update();
  }

  std::shared_ptr<Quantizer> quantizer_ = case_.make_usual();
  Tensor input_, weight_;
};

TEST_P(DeviceRules, TrainingReadsNothingAfterTheFirstStep) {
  input_ = normal(usual_shape(case_), usual_deviation(case_), 1);
  weight_ = normal({8, 3, 3, 3}, 0.3, 2);
  std::vector<Border> paddings = {{}};
  if (case_.role == Role::activation && case_.layer == LayerKind::convolution)
    paddings.push_back({{1, 1}, {1, 1}});
  for (const Border& padding : paddings) {
    step(padding);
    quantizer_->start_epoch({.epoch = 1, .milestones = 0});
    const std::uint64_t reads = host_read_count();
    const std::uint64_t waits = device_synchronization_count();
    for (int i = 0; i < 3; ++i) step(padding);
    EXPECT_EQ(host_read_count(), reads) << (padding.none() ? "" : "with padding");
    EXPECT_EQ(device_synchronization_count(), waits) << (padding.none() ? "" : "with padding");
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, DeviceRules, testing_support::on_devices(subjects()),
                         testing_support::device_test_name);

}  // namespace
}  // namespace qtrain::quant
