// Every registered quantizer trains on every device as it does on the CPU: in each of its roles, with every
// switch and choice, alone and between a batch norm and a convolution. Each tensor is compared relative to
// its largest value, by the tolerances of the golden families. What lies on a rounding boundary to the last
// bit may go to either side, and would show: unlikely among so few values.
#include <gtest/gtest.h>

#include <set>

#include "engine/autograd/tape.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/convolution.h"
#include "engine/ops/reduce.h"
#include "engine/optim/sgd.h"
#include "layers/normalization.h"
#include "tests/devices.h"
#include "tests/engine/support.h"
#include "tests/quant/subjects.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::device_test_name;
using testing_support::identical;
using testing_support::near;
using testing_support::normal_values;
using testing_support::on_devices;
using testing_support::OnDevice;
using testing_support::random_values;

// What a step computes, by name, as the host sees it.
struct Result {
  std::string name;
  std::vector<float> values;
  double tolerance;
};
using Results = std::vector<Result>;

constexpr double of_elements = 1e-4;
constexpr double of_parameters = 2e-4;  // whose gradients are sums with cancellation

void expect_same(const Results& got, const Results& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].name, want[i].name);
    EXPECT_TRUE(near(got[i].values, want[i].values, want[i].tolerance)) << want[i].name;
  }
}

void expect_same_bits(const Results& a, const Results& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(identical(a[i].values, b[i].values)) << a[i].name;
}

Tensor normal(const Shape& shape, double deviation, std::uint64_t seed, Device device) {
  return Tensor::from_values(shape, normal_values(static_cast<std::size_t>(shape.numel()), deviation, seed),
                             device);
}

// Two steps of training and an evaluation behind them.
Results train_alone(const Subject& subject, Device device) {
  const std::shared_ptr<Quantizer> quantizer = subject.make_usual();
  quantizer->to(device);
  std::unique_ptr<SGD> optimizer;
  if (!quantizer->parameters().empty())
    optimizer =
        std::make_unique<SGD>(std::vector{ParameterGroup{.parameters = quantizer->named_parameters()}},
                              SgdOptions{.learning_rate = 0.001, .momentum = 0.9});
  const Tensor weight = normal({8, 3, 3, 3}, 0.3, 50, device);
  Results results;
  for (std::uint64_t step = 1; step <= 2; ++step) {
    const auto add_result = [&](const std::string& name, const Tensor& t, double tolerance) {
      if (t.defined() && t.dtype() == DType::f32)
        results.push_back({"step " + std::to_string(step) + ", " + name, t.values(), tolerance});
    };
    Tensor x = normal(usual_shape(subject), usual_deviation(subject), step, device);
    x.set_requires_grad(true);
    if (subject.role == Role::bias) quantizer->follow_weight(weight);
    const Tensor y = quantizer->forward(x);
    EXPECT_EQ(y.device(), device);
    const Tensor own_loss = quantizer->take_loss();
    const Tensor loss = sum(multiply(y, normal(y.shape(), 1, 100 + step, device)));
    Tape::backward(own_loss.defined() ? add(loss, own_loss) : loss);
    add_result("output", y, of_elements);
    add_result("own loss", own_loss, of_elements);
    add_result("gradient of x", x.grad(), of_elements);
    quantizer->before_update();
    for (const NamedTensor& p : quantizer->named_parameters())
      add_result("gradient of " + p.name, p.tensor.grad(), of_parameters);
    if (optimizer != nullptr) {
      optimizer->step();
      optimizer->zero_grad();
    }
    quantizer->after_update();
    for (const NamedTensor& t : quantizer->state_dict()) add_result(t.name, t.tensor, of_parameters);
  }
  quantizer->evaluate();
  const NoGradGuard no_grad;
  const Tensor y = quantizer->forward(normal(usual_shape(subject), usual_deviation(subject), 3, device));
  results.push_back({"evaluation", y.values(), of_elements});
  return results;
}

class QuantizerParity : public OnDevice<Subject> {};

TEST_P(QuantizerParity, TrainsAsOnTheCpu) {
  expect_same(train_alone(case_, device_), train_alone(case_, Device{}));
}

TEST_P(QuantizerParity, GivesTheSameBitsTwice) {
  expect_same_bits(train_alone(case_, device_), train_alone(case_, device_));
}

INSTANTIATE_TEST_SUITE_P(Registry, QuantizerParity, on_devices(subjects()), device_test_name);

// --- in a block of a network

// Small multiples of 1/8: the first convolution is exact, in any order of summation.
Tensor eighths(const Shape& shape, std::uint64_t seed, Device device) {
  std::vector<float> values = random_values(shape.numel(), seed, {-2, 2});
  for (float& v : values) v = std::round(v * 8) / 8;
  return Tensor::from_values(shape, values, device);
}

struct BlockCase {
  std::string quantizer;
  bool relu = true;
  bool residual = false;
  bool fuse = true;
};

std::ostream& operator<<(std::ostream& out, const BlockCase& c) {
  return out << c.quantizer << (c.relu ? "_relu" : "") << (c.residual ? "_residual" : "")
             << (c.fuse ? "_fused" : "_apart");
}

std::vector<BlockCase> blocks() {
  std::vector<BlockCase> all;
  for (const QuantizerInfo* info : quantizers())
    if (info->has_role(Role::activation))
      for (const bool fuse : {true, false})
        for (const bool residual : {false, true})
          all.push_back(
              {.quantizer = info->name, .relu = !residual || fuse, .residual = residual, .fuse = fuse});
  return all;
}

// conv2d(q(batch_norm(conv2d(x, a)) [+ residual]), b), three times: quantizers start with measurements, and
// batch norms learn who uses their output.
Results train_block(const BlockCase& c, Device device) {
  constexpr std::int64_t channels = 24;
  BatchNorm2d norm(channels);
  norm.set_fusion(c.fuse);
  const auto quantizer = make_quantizer(c.quantizer, Role::activation,
                                        nearest_bits(find_quantizer(c.quantizer), Role::activation, 3),
                                        LayerKind::convolution, {}, {1, channels, 1, 1});
  norm.to(device);
  quantizer->to(device);
  norm.weight().copy_from(Tensor::from_values({channels}, random_values(channels, 1, {0.5, 2}), device));
  norm.bias().copy_from(Tensor::from_values({channels}, random_values(channels, 2, {-0.5, 1}), device));
  const ConvolutionGeometry same{.pad_begin = {1, 1}, .pad_end = {1, 1}};
  NamedTensors leaves{{"x", eighths({4, 8, 6, 6}, 3, device)},
                      {"first weight", eighths({channels, 8, 3, 3}, 4, device)},
                      {"second weight", normal({16, channels, 3, 3}, 0.3, 5, device)},
                      {"residual", normal({4, channels, 6, 6}, 1, 6, device)}};
  if (!c.residual) leaves.pop_back();
  for (NamedTensor& leaf : leaves) leaf.tensor.set_requires_grad(true);
  for (const NamedTensor& p : norm.named_parameters()) leaves.push_back({"norm's " + p.name, p.tensor});
  for (const NamedTensor& p : quantizer->named_parameters()) leaves.push_back(p);

  Results results;
  for (int step = 0; step < 3; ++step) {
    const std::string in_step = "step " + std::to_string(step) + ", ";
    const Tensor y = norm.forward(conv2d(leaves[0].tensor, leaves[1].tensor, {}, same), c.relu,
                                  c.residual ? leaves[3].tensor : Tensor());
    const Tensor q = quantizer->forward(y);
    const Tensor out = conv2d(q, leaves[2].tensor, {}, same);
    Tensor loss = sum(multiply(out, normal(out.shape(), 1, 7, device)));
    if (const Tensor more = quantizer->take_loss(); more.defined()) loss = add(loss, more);
    results.push_back({in_step + "quantized", q.values(), of_elements});
    results.push_back({in_step + "output", out.values(), of_elements});
    Tape::backward(loss);
    for (const NamedTensor& leaf : leaves) {
      if (const Tensor g = leaf.tensor.grad(); g.defined())
        results.push_back({in_step + "gradient of " + leaf.name, g.values(), of_parameters});
      leaf.tensor.set_grad({});
    }
    results.push_back({in_step + "running mean", norm.running_mean().values(), of_parameters});
    results.push_back({in_step + "running variance", norm.running_variance().values(), of_parameters});
  }
  return results;
}

class BlockParity : public OnDevice<BlockCase> {
 private:
  const testing_support::Threads one_{1};  // at this size more only wait for each other
};

TEST_P(BlockParity, TrainsAsOnTheCpu) {
  expect_same(train_block(case_, device_), train_block(case_, Device{}));
}

TEST_P(BlockParity, GivesTheSameBitsTwice) {
  expect_same_bits(train_block(case_, device_), train_block(case_, device_));
}

INSTANTIATE_TEST_SUITE_P(Activations, BlockParity, on_devices(blocks()), device_test_name);

// The comparison sees something: outputs and gradients aren't all zero.
TEST(QuantizerParityCheck, ComparesMoreThanZeros) {
  for (const Subject& subject : subjects()) {
    std::set<std::string> seen;
    for (const Result& r : train_alone(subject, Device{}))
      if (std::any_of(r.values.begin(), r.values.end(), [](float v) { return v != 0; })) seen.insert(r.name);
    for (const char* name :
         {"step 1, output", "step 2, output", "step 1, gradient of x", "step 2, gradient of x"})
      EXPECT_TRUE(seen.contains(name)) << subject.name() << ": " << name;
  }
}

}  // namespace
}  // namespace qtrain::quant
