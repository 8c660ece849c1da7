#include "layers/module.h"

#include <gtest/gtest.h>

#include "engine/core/error.h"
#include "layers/activation.h"
#include "layers/conv2d.h"
#include "layers/linear.h"
#include "layers/normalization.h"
#include "layers/sequential.h"

namespace qtrain {
namespace {

std::shared_ptr<Conv2d> conv(std::int64_t in, std::int64_t out, bool bias = false) {
  return std::make_shared<Conv2d>(Conv2dOptions{.in_channels = in, .out_channels = out, .bias = bias});
}

class Toy final : public Module {
 public:
  Tensor forward(const Tensor& x) override { return body(bn1(conv1(x), true)); }
  std::string kind() const override { return "Toy"; }

  Slot<Module> conv1 = add("conv1", conv(2, 4));
  Slot<Normalization> bn1 = add<Normalization>("bn1", std::make_shared<BatchNorm2d>(4));
  Slot<Module> body =
      add("body", std::shared_ptr<Sequential>(new Sequential{conv(4, 3, true), std::make_shared<ReLU>()}));
  Slot<Module> absent;
};

// Exposes registration, for its errors.
class Bare final : public Module {
 public:
  Tensor forward(const Tensor& x) override { return x; }
  std::string kind() const override { return "Bare"; }
  using Module::add;
  using Module::add_buffer;
  using Module::add_counter;
  using Module::add_parameter;
};

// Answers with a constant and remembers where it ran.
class Probe final : public Module {
 public:
  Tensor forward(const Tensor& x) override {
    scope = ScopeName::current();
    return Tensor::full({x.dim(0), 3, x.dim(2), x.dim(3)}, 7);
  }
  std::string kind() const override { return "Probe"; }
  std::string scope;
};

std::vector<std::string> names(const NamedTensors& tensors) {
  std::vector<std::string> result;
  for (const NamedTensor& t : tensors) result.push_back(t.name);
  return result;
}

Tensor find(const NamedTensors& tensors, const std::string& name) {
  for (const NamedTensor& t : tensors)
    if (t.name == name) return t.tensor;
  return {};
}

template <class E = ValueError, class F>
std::string message(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Module, NamesAreInOrderOfRegistrationAndDotted) {
  Toy toy;
  EXPECT_EQ(names(toy.named_parameters()), (std::vector<std::string>{"conv1.weight", "bn1.weight", "bn1.bias",
                                                                     "body.0.weight", "body.0.bias"}));
  EXPECT_EQ(names(toy.named_buffers()),
            (std::vector<std::string>{"bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"}));
  EXPECT_EQ(names(toy.state_dict()),
            (std::vector<std::string>{"conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean",
                                      "bn1.running_var", "bn1.num_batches_tracked", "body.0.weight",
                                      "body.0.bias"}));
  EXPECT_EQ(toy.parameter_count(), 2 * 4 + 4 + 4 + 4 * 3 + 3);
  EXPECT_EQ(toy.parameters().size(), 5U);
  for (const Tensor& p : toy.parameters()) EXPECT_TRUE(p.requires_grad());
  for (const NamedTensor& b : toy.named_buffers()) EXPECT_FALSE(b.tensor.requires_grad());
}

TEST(Module, VisitsParentsFirst) {
  Toy toy;
  std::vector<std::string> seen;
  toy.visit([&](const std::string& path, Module& m) { seen.push_back(path + ":" + m.kind()); });
  EXPECT_EQ(seen, (std::vector<std::string>{":Toy", "conv1:Conv2d", "bn1:BatchNorm2d", "body:Sequential",
                                            "body.0:Conv2d", "body.1:ReLU"}));
  EXPECT_EQ(toy.child("body.1")->kind(), "ReLU");
  const std::string summary = toy.summary();
  EXPECT_TRUE(has(summary, "  conv1: Conv2d(2 -> 4, kernel 1x1)  [8 parameters]\n")) << summary;
  EXPECT_TRUE(has(summary, "    1: ReLU\n")) << summary;
}

TEST(Module, TrainAndEvaluateReachTheWholeTree) {
  Toy toy;
  EXPECT_TRUE(toy.is_training());
  toy.evaluate();
  toy.visit([](const std::string&, Module& m) { EXPECT_FALSE(m.is_training()); });
  auto fresh = std::make_shared<ReLU>();
  toy.replace_child("body.1", fresh);
  EXPECT_FALSE(fresh->is_training());
  toy.train();
  EXPECT_TRUE(fresh->is_training());
}

TEST(Module, AReplacedChildRunsUnderItsName) {
  Toy toy;
  auto probe = std::make_shared<Probe>();
  toy.replace_child("body.0", probe);
  const Tensor y = toy(Tensor::full({2, 2, 3, 3}, 1));
  EXPECT_EQ(probe->scope, "body.0");
  EXPECT_EQ(y.shape(), (Shape{2, 3, 3, 3}));
  EXPECT_EQ(y.values().front(), 7.0F);
  EXPECT_EQ(ScopeName::current(), "");
}

TEST(Module, AReplacementCanTakeOverTheTensors) {
  Toy toy;
  const auto old = std::dynamic_pointer_cast<Conv2d>(toy.child("body.0"));
  toy.replace_child("body.0", std::make_shared<Conv2d>(old->weight(), old->bias(), old->geometry()));
  EXPECT_TRUE(find(toy.named_parameters(), "body.0.weight").shares_storage_with(old->weight()));
  EXPECT_EQ(toy.parameter_count(), 31);
}

TEST(Module, ChildrenCanBeReplacedDuringAVisit) {
  Toy toy;
  std::vector<std::string> seen;
  toy.visit([&](const std::string& path, Module& m) {
    seen.push_back(path);
    if (m.kind() == "Conv2d" || m.kind() == "Sequential")
      toy.replace_child(path, std::make_shared<Identity>());
  });
  EXPECT_EQ(seen, (std::vector<std::string>{"", "conv1", "bn1", "body"}));
  EXPECT_EQ(toy.child("body")->kind(), "Identity");
}

TEST(Module, RefusesChildrenOfTheWrongType) {
  Toy toy;
  const std::string wrong = message([&] { toy.replace_child("bn1", std::make_shared<ReLU>()); });
  EXPECT_TRUE(has(wrong, "[bn1]") && has(wrong, "got ReLU") && has(wrong, "expected Normalization")) << wrong;
  EXPECT_TRUE(has(message([&] { toy.replace_child("conv1", nullptr); }), "got nothing"));
  EXPECT_EQ(toy.child("bn1")->kind(), "BatchNorm2d");
  const std::string unknown = message([&] { toy.child("body.conv0"); });
  EXPECT_TRUE(has(unknown, "no module 'body.conv0'")) << unknown;
  EXPECT_TRUE(has(message([&] { toy.child("conv2"); }), "did you mean 'conv1'"));
  EXPECT_THROW(toy.child(""), ValueError);
  EXPECT_THROW(toy.child("conv1.weight"), ValueError);
}

TEST(Module, RefusesBadNames) {
  Bare m;
  m.add_parameter("weight", make_parameter({2}));
  EXPECT_THROW(m.add_buffer("weight", Tensor::zeros({2})), ValueError);
  EXPECT_THROW(m.add("weight", std::make_shared<ReLU>()), ValueError);
  EXPECT_THROW(m.add_buffer("a.b", Tensor::zeros({2})), ValueError);
  EXPECT_THROW(m.add_buffer("", Tensor::zeros({2})), ValueError);
  EXPECT_THROW(m.add("child", nullptr), ValueError);
  EXPECT_EQ(names(m.state_dict()), std::vector<std::string>{"weight"});
}

TEST(Module, ASharedTensorIsOneParameter) {
  Sequential both;
  const auto a = std::make_shared<Linear>(3, 3);
  both.append(a).append(std::make_shared<Linear>(a->weight(), Tensor{}));
  EXPECT_EQ(names(both.named_parameters()), (std::vector<std::string>{"0.weight", "0.bias"}));
  EXPECT_EQ(names(both.state_dict()), (std::vector<std::string>{"0.weight", "0.bias", "1.weight"}));
  both.to(Device{});
  EXPECT_TRUE(find(both.state_dict(), "1.weight").shares_storage_with(a->weight()));
}

TEST(StateDict, RoundTripsInPlace) {
  Toy from;
  Toy to;
  float next = 0;
  for (const NamedTensor& t : from.state_dict())
    if (t.tensor.dtype() == DType::f32) t.tensor.copy_from(Tensor::full(t.tensor.shape(), ++next));
  const Tensor handle = find(to.state_dict(), "bn1.running_var");
  const LoadReport report = to.load_state_dict(from.state_dict());
  EXPECT_EQ(report.loaded, 8U);
  EXPECT_EQ(handle.values(), std::vector<float>(4, 5.0F));
  EXPECT_EQ(find(to.state_dict(), "body.0.bias").values(), std::vector<float>(3, 7.0F));
  EXPECT_FALSE(handle.shares_storage_with(find(from.state_dict(), "bn1.running_var")));
}

TEST(StateDict, CountersMayBeAbsent) {
  Toy from;
  Toy to;
  NamedTensors state = from.state_dict();
  std::erase_if(state, [](const NamedTensor& t) { return t.name == "bn1.num_batches_tracked"; });
  EXPECT_EQ(to.load_state_dict(state).loaded, 7U);
}

TEST(StateDict, ReportsAllMismatchesAtOnceAndChangesNothing) {
  Toy toy;
  const std::vector<float> before = find(toy.state_dict(), "bn1.weight").values();
  NamedTensors state = Toy().state_dict();
  for (NamedTensor& t : state) {
    if (t.name == "bn1.weight") t.tensor = Tensor::full({4}, 9);
    if (t.name == "conv1.weight") t.name = "conv_1.weight";
    if (t.name == "body.0.bias") t.tensor = Tensor::zeros({5});
  }
  const std::string text = message([&] { toy.load_state_dict(state); });
  EXPECT_TRUE(has(text, "1 missing (conv1.weight)")) << text;
  EXPECT_TRUE(has(text, "1 unexpected (conv_1.weight)")) << text;
  EXPECT_TRUE(has(text, "body.0.bias: f32[5] for f32[3]")) << text;
  EXPECT_TRUE(has(text, "'conv_1.weight' is nearest")) << text;
  EXPECT_EQ(find(toy.state_dict(), "bn1.weight").values(), before);
  EXPECT_THROW(toy.load_state_dict(state, false), ValueError) << "shapes count even when not strict";
}

TEST(StateDict, ManyMissingNamesAreCounted) {
  Toy toy;
  const std::string text = message([&] { toy.load_state_dict({}); });
  EXPECT_TRUE(has(text, "7 missing (conv1.weight, bn1.weight, bn1.bias, ...)")) << text;
}

TEST(StateDict, NotStrictLoadsWhatIsThere) {
  Toy toy;
  const LoadReport report =
      toy.load_state_dict({{"bn1.bias", Tensor::full({4}, 3)}, {"head.weight", Tensor::zeros({1})}}, false);
  EXPECT_EQ(report.loaded, 1U);
  EXPECT_EQ(report.missing.size(), 6U);
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"head.weight"});
  EXPECT_EQ(find(toy.state_dict(), "bn1.bias").values(), std::vector<float>(4, 3.0F));
}

TEST(StateDict, RefusesDuplicatesUndefinedTensorsAndOtherTypes) {
  Toy toy;
  NamedTensors twice = toy.state_dict();
  twice.push_back(twice.front());
  EXPECT_THROW(toy.load_state_dict(twice), ValueError);
  EXPECT_THROW(toy.load_state_dict({{"bn1.bias", Tensor{}}}, false), ValueError);
  EXPECT_THROW(toy.load_state_dict({{"bn1.bias", Tensor::zeros({4}, DType::f64)}}, false), ValueError);
}

}  // namespace
}  // namespace qtrain
