// A batch norm for each bit-width: names, independence of each other, and that each is a plain batch norm.
#include "quant/switchable_batch_norm.h"

#include <gtest/gtest.h>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "zoo/registry.h"

namespace qtrain::quant {
namespace {

using Values = std::vector<float>;

Tensor random(const Shape& shape, std::uint64_t seed) {
  RandomStream stream(seed, RandomPurpose::user);
  Values values(static_cast<std::size_t>(shape.numel()));
  for (float& v : values) v = static_cast<float>(stream.normal() + 0.5);
  return Tensor::from_values(shape, values);
}

std::vector<std::string> names(const NamedTensors& tensors) {
  std::vector<std::string> all;
  for (const NamedTensor& t : tensors) all.push_back(t.name);
  return all;
}

Tensor find(Module& module, const std::string& name) {
  for (const NamedTensor& t : module.state_dict())
    if (t.name == name) return t.tensor;
  ADD_FAILURE() << name;
  return {};
}

// A batch norm that has seen something.
std::shared_ptr<BatchNorm2d> trained() {
  auto norm = std::make_shared<BatchNorm2d>(3);
  norm->weight().copy_from(Tensor::from_values({3}, {0.5F, 2, -1}));
  norm->bias().copy_from(Tensor::from_values({3}, {1, 0, 0.25F}));
  norm->forward(random({4, 3, 2, 2}, 1), false);
  return norm;
}

TEST(SwitchableBatchNorm, NamesItsTensorsByBitWidth) {
  SwitchableBatchNorm2d own(BatchNorm2d(3), {"bn", {5, 4}});
  EXPECT_EQ(names(own.named_parameters()),
            (std::vector<std::string>{"bits5.weight", "bits5.bias", "bits4.weight", "bits4.bias"}));
  EXPECT_EQ(find(own, "bits5.running_var").values(), (Values{1, 1, 1}));
  SwitchableBatchNorm2d shared(BatchNorm2d(3), {"bn", {5, 4}}, true);
  EXPECT_EQ(names(shared.named_parameters()), (std::vector<std::string>{"weight", "bias"}));
  EXPECT_EQ(find(shared, "bits4.running_mean").values(), (Values{0, 0, 0}));
  EXPECT_EQ(own.bits(), 4);  // the last
  EXPECT_EQ(own.channels(), 3);
  EXPECT_EQ(own.describe(), "SwitchableBatchNorm2d(3, for 5, 4 bits, 4 active)");
}

TEST(SwitchableBatchNorm, EveryWidthStartsAsTheSourceAndGoesItsOwnWay) {
  for (const bool shared : {false, true}) {
    const auto source = trained();
    SwitchableBatchNorm2d norm(*source, {"bn", {8, 4}}, shared);
    const Tensor x = random({4, 3, 2, 2}, 2);
    const Tensor residual = random({4, 3, 2, 2}, 3);
    const Values untouched = source->running_mean().values();
    for (const int bits : {8, 4}) {
      const auto plain = trained();
      norm.set_bits(bits);
      norm.train();
      for (const bool training : {true, false}) {
        norm.train(training);
        plain->train(training);
        EXPECT_EQ(norm.forward(x, true, residual).values(), plain->forward(x, true, residual).values());
      }
      const std::string child = "bits" + std::to_string(bits) + ".";
      EXPECT_EQ(find(norm, child + "running_mean").values(), plain->running_mean().values());
      EXPECT_EQ(find(norm, child + "running_var").values(), plain->running_variance().values());
      EXPECT_EQ(find(norm, "bits4.running_mean").values() == untouched, bits == 8);
    }
    EXPECT_EQ(source->running_mean().values(), untouched);
  }
}

TEST(SwitchableBatchNorm, OnlyTheActiveWidthGetsGradients) {
  SwitchableBatchNorm2d norm(*trained(), {"bn", {8, 4}});
  norm.set_bits(8);
  const Tensor g = random({4, 3, 2, 2}, 4);
  Tape::backward(norm.forward(random({4, 3, 2, 2}, 2), false), g);
  for (const NamedTensor& p : norm.named_parameters())
    EXPECT_EQ(p.tensor.grad().defined(), p.name.starts_with("bits8.")) << p.name;
  SwitchableBatchNorm2d shared(*trained(), {"bn", {8, 4}}, true);
  for (const int bits : {8, 4}) {
    shared.set_bits(bits);
    Tape::backward(shared.forward(random({4, 3, 2, 2}, 2), false), g);
  }
  const Values once = find(norm, "bits8.bias").grad().values();
  const Values twice = find(shared, "bias").grad().values();
  for (std::size_t c = 0; c < once.size(); ++c) EXPECT_FLOAT_EQ(twice[c], 2 * once[c]);
}

TEST(SwitchableBatchNorm, RefusesWidthsOutsideTheList) {
  SwitchableBatchNorm2d strict(BatchNorm2d(3), {"bn1", {8, 4}});
  EXPECT_THROW(strict.set_bits(5), ValueError);
  EXPECT_EQ(strict.bits(), 4);
  strict.set_bits(32);  // the float network's, which is the first
  for (const int bits : {-1, 0, 33}) EXPECT_THROW(strict.set_bits(bits), ValueError);
  SwitchableBatchNorm2d lenient(BatchNorm2d(3), {"bn1", {8, 4}, OutsideList::first});
  lenient.set_bits(5);
  lenient.forward(random({4, 3, 2, 2}, 2), false);
  EXPECT_NE(find(lenient, "bits8.running_mean").values(), (Values{0, 0, 0}));
  EXPECT_EQ(find(lenient, "bits4.running_mean").values(), (Values{0, 0, 0}));
  for (const std::vector<int>& list : {std::vector<int>{}, {0}, {33}, {4, 4}})
    EXPECT_THROW(BitsList("bn1", list), ValueError);
}

TEST(SwitchableBatchNorm, StandsInForABatchNormOfAModel) {
  const auto network = zoo::make_model("resnet20", {.num_classes = 10});
  const auto plain = std::dynamic_pointer_cast<BatchNorm2d>(network->child("bn1"));
  network->replace_child("bn1", std::make_shared<SwitchableBatchNorm2d>(*plain, BitsList("bn1", {5, 4, 3})));
  const Tensor x = random({2, 3, 32, 32}, 1);
  EXPECT_EQ(network->forward(x).shape(), (Shape{2, 10}));
  EXPECT_TRUE(find(*network, "bn1.bits5.weight").defined());

  const auto other = zoo::make_model("resnet20", {.num_classes = 10, .seed = 7});
  other->replace_child("bn1",
                       std::make_shared<SwitchableBatchNorm2d>(BatchNorm2d(16), BitsList("bn1", {5, 4, 3})));
  other->load_state_dict(network->state_dict());
  network->evaluate();
  other->evaluate();
  EXPECT_EQ(other->forward(x).values(), network->forward(x).values());
}

}  // namespace
}  // namespace qtrain::quant
