// A batch norm with a quantizer behind it gives the same fused and in passes of their own.
#include <gtest/gtest.h>

#include <set>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/cast.h"
#include "engine/ops/convolution.h"
#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "engine/optim/sgd.h"
#include "layers/normalization.h"
#include "quant/registry.h"
#include "quant/switchable_batch_norm.h"
#include "quant/wrap.h"
#include "tests/engine/support.h"
#include "zoo/registry.h"

namespace qtrain::quant {
namespace {

using testing_support::near;
using testing_support::random_tensor;
using testing_support::Threads;

const Shape image_shape{4, 24, 6, 6};

// What stands around the batch norm.
struct Setting {
  bool relu = true;
  bool residual = false;
  bool output_used = false;  // y has a second consumer
  bool training = true;
  Shape shape = image_shape;
  Border border{};  // of quantizers that pad first
  DType dtype = DType::f32;
};

std::ostream& operator<<(std::ostream& out, const Setting& s) {
  return out << (s.relu ? "relu " : "") << (s.residual ? "residual " : "")
             << (s.output_used ? "used twice " : "") << (s.training ? "training " : "evaluation ")
             << s.shape.str() << (s.border.none() ? "" : " bordered")
             << (s.dtype == DType::bf16 ? " bf16" : "");
}

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const bool relu : {true, false})
    for (const bool residual : {false, true})
      for (const bool used : {false, true})
        for (const bool training : {true, false})
          all.push_back({.relu = relu, .residual = residual, .output_used = used, .training = training});
  for (const Shape& shape : {Shape{3, 5, 3, 1}, Shape{5, 130, 3, 3}, Shape{2, 1, 4, 4}, Shape{40, 64, 8, 8}})
    all.push_back({.residual = shape[1] == 5, .shape = shape});
  return all;
}

using Named = std::vector<std::pair<std::string, Tensor>>;

// conv2d(q(batch_norm(x) [+ residual]), w): the convolution makes its input again in backward.
struct Piece {
  Setting setting;
  BatchNorm2d norm;
  std::shared_ptr<Quantizer> quantizer;
  Tensor x, residual, weight;
  bool was_pending = false;     // y, behind the forward
  bool stayed_pending = false;  // and behind the backward

  Piece(const Setting& s, const std::string& name, const std::map<std::string, std::string>& options,
        bool fuse)
      : setting(s), norm(s.shape[1]) {
    const std::int64_t channels = s.shape[1];
    norm.weight().copy_from(random_tensor({channels}, 1, {0.5, 2}));
    norm.bias().copy_from(random_tensor({channels}, 2, {-0.5, 1}));
    norm.running_mean().copy_from(random_tensor({channels}, 3));
    norm.set_fusion(fuse);
    norm.train(s.training);
    const QuantizerInfo& info = find_quantizer(name);
    quantizer = make_quantizer(name, Role::activation, nearest_bits(info, Role::activation, 3),
                               LayerKind::convolution, options, {1, channels, 1, 1});
    quantizer->train(s.training);
    x = random_tensor(s.shape, 4, {-2, 3}).set_requires_grad(true);
    residual = s.residual ? random_tensor(s.shape, 5).set_requires_grad(true) : Tensor();
    weight = random_tensor({8, channels, 1, 1}, 6).set_requires_grad(true);
  }

  Tensor typed(const Tensor& t) const { return t.defined() ? cast(t, setting.dtype) : t; }
  Tensor factors(const Tensor& t, std::uint64_t seed) const { return typed(random_tensor(t.shape(), seed)); }

  Named run() {
    const Tensor y = norm.forward(typed(x), setting.relu, typed(residual));
    const Tensor q = quantizer->forward(y, setting.border);
    was_pending = y.pending() != nullptr;
    const Tensor out = conv2d(q, weight, {}, {});
    Named all{{"q", q.detach()}};
    Tensor loss = sum(cast(multiply(out, factors(out, 7)), DType::f32));
    if (setting.output_used) loss = add(loss, sum(cast(multiply(y, factors(y, 8)), DType::f32)));
    if (setting.output_used) all.emplace_back("y", y.detach());
    if (const Tensor more = quantizer->take_loss(); more.defined()) loss = add(loss, more);
    Tape::backward(loss);
    stayed_pending = y.pending() != nullptr;
    const auto give = [&](const std::string& name, const Tensor& leaf) {
      all.emplace_back("gradient of " + name, leaf.grad());
      leaf.set_grad({});
    };
    give("x", x);
    give("weight", weight);
    give("gamma", norm.weight());
    give("beta", norm.bias());
    if (residual.defined()) give("residual", residual);
    for (const NamedTensor& p : quantizer->named_parameters()) give(p.name, p.tensor);
    return all;
  }
};

bool is_gradient(const std::string& name) {
  return name.starts_with("gradient");
}

// Gradients of bf16: apart, the quantizer's is rounded on its way to batch norm.
constexpr double f32_tolerance = 2e-5;
constexpr double bf16_tolerance = 1.0 / 128;

void expect_same(const Named& fused, const Named& plain, const std::string& what,
                 double tolerance = f32_tolerance) {
  ASSERT_EQ(fused.size(), plain.size()) << what;
  for (std::size_t i = 0; i < fused.size(); ++i) {
    const auto& [name, tensor] = fused[i];
    ASSERT_EQ(tensor.defined(), plain[i].second.defined()) << what << ": " << name;
    if (!tensor.defined()) continue;
    const Tensor got = cast(tensor, DType::f32), want = cast(plain[i].second, DType::f32);
    if (is_gradient(name))
      EXPECT_TRUE(near(got, want, tolerance)) << what << ": " << name;
    else
      EXPECT_EQ(got.values(), want.values()) << what << ": " << name;
  }
}

std::string text(const Setting& s) {
  std::ostringstream out;
  out << s;
  return out.str();
}

// Three steps, as quantizers start with measurements and batch norms learn who uses their output.
void compare(const Setting& s, const std::string& name,
             const std::map<std::string, std::string>& options = {}) {
  Piece fused(s, name, options, true), plain(s, name, options, false);
  for (int step = 0; step < 3; ++step)
    expect_same(fused.run(), plain.run(), name + ", " + text(s) + ", step " + std::to_string(step),
                s.dtype == DType::bf16 ? bf16_tolerance : f32_tolerance);
}

std::vector<std::string> activation_quantizers() {
  std::vector<std::string> names;
  for (const QuantizerInfo* info : quantizers())
    if (info->has_role(Role::activation)) names.push_back(info->name);
  return names;
}

TEST(Fusion, EveryQuantizerGivesTheSame) {
  for (const std::string& name : activation_quantizers())
    for (const Setting& s : settings()) compare(s, name);
}

TEST(Fusion, EveryOptionGivesTheSame) {
  for (const std::string& name : activation_quantizers())
    for (const OptionSpec& spec : find_quantizer(name).options(Role::activation)) {
      std::vector<std::string> values = spec.choices;
      if (spec.type == OptionType::boolean) values = {"true", "false"};
      for (const std::string& value : values) {
        if (value == spec.default_value) continue;
        try {
          compare({.residual = true}, name, {{spec.name, value}});
        } catch (const ValueError&) {  // has no meaning by itself
        }
      }
    }
}

// Whoever asks for a pending output or gradient gets it. The search for NaN asks for all of them.
TEST(Fusion, WhatIsAskedForEarlyIsTheSame) {
  const FiniteCheckGuard guard;
  for (const std::string& name : activation_quantizers()) {
    compare({}, name);
    compare({.residual = true, .output_used = true}, name);
  }
}

// Not the values but that it happens: y isn't computed where only the quantizer uses it.
TEST(Fusion, HappensWhereItCan) {
  std::set<std::string> fused;
  for (const std::string& name : activation_quantizers()) {
    Piece piece({}, name, {}, true);
    piece.run();
    piece.run();
    if (piece.was_pending) fused.insert(name);
  }
  for (const char* name : {"adabits", "dorefa", "lsq", "mixed-uniform", "pact", "sat"})
    EXPECT_TRUE(fused.contains(name)) << name;
  EXPECT_FALSE(fused.contains("lq-nets"));  // measures what it quantizes
}

// -- quantizers that pad first

const Border around{{1, 1}, {1, 1}};
const Border uneven{{2, 0}, {0, 3}};

struct Padding {
  std::string quantizer;
  std::map<std::string, std::string> options{};
  bool takes_bf16 = true;
};

// Without parameters, without a gradient of their own, with one parameter and with two.
const std::vector<Padding> padding_first = {
    {"xnor"},
    {"xnor", {{"grad", "triangle"}}},
    {"xnor", {{"grad", "none"}}},
    {"lsq", {{"half_range", "false"}}},  // odd codes
    {"pow2", {{"with_zero", "false"}}, false},
    {"mixed-pow2", {{"with_zero", "false"}, {"sign", "true"}}, false},
};

TEST(Fusion, PaddingFirstGivesTheSame) {
  for (const auto& [name, options, takes_bf16] : padding_first)
    for (Setting s : settings())
      for (const Border& border : {around, uneven}) {
        s.border = border;
        for (const DType dtype : {DType::f32, DType::bf16}) {
          if (dtype == DType::bf16 && !takes_bf16) continue;
          s.dtype = dtype;
          compare(s, name, options);
        }
      }
}

TEST(Fusion, PaddingFirstAskedForEarlyIsTheSame) {
  const FiniteCheckGuard guard;
  for (const auto& [name, options, takes_bf16] : padding_first)
    compare({.residual = true, .output_used = true, .border = around}, name, options);
}

// Neither the forward nor the backward makes y.
TEST(Fusion, PaddingFirstHappens) {
  for (const auto& [name, options, takes_bf16] : padding_first)
    for (const bool residual : {false, true})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        if (dtype == DType::bf16 && !takes_bf16) continue;
        Piece piece({.residual = residual, .border = around, .dtype = dtype}, name, options, true);
        piece.run();
        piece.run();
        EXPECT_TRUE(piece.was_pending) << name << ", " << text(piece.setting);
        EXPECT_TRUE(piece.stayed_pending) << name << ", " << text(piece.setting);
      }
}

TEST(Fusion, AnyNumberOfThreadsGivesTheSameBits) {
  const std::map<std::string, std::string> odd_codes{{"half_range", "false"}};
  for (const Setting& s : {Setting{.shape = {40, 64, 8, 8}}, Setting{.residual = true, .output_used = true},
                           Setting{.shape = {40, 64, 8, 8}, .border = around}}) {
    std::vector<std::vector<float>> first;
    for (const int count : {1, 2, 3}) {
      const Threads threads(count);
      Piece piece(s, "lsq", s.border.none() ? std::map<std::string, std::string>() : odd_codes, true);
      piece.weight.set_requires_grad(false);  // oneDNN splits its sum by thread
      std::size_t i = 0;
      for (const auto& [name, tensor] : piece.run()) {
        if (!tensor.defined()) continue;
        if (count == 1) first.push_back(tensor.values());
        EXPECT_EQ(tensor.values(), first[i++]) << name << ", " << count << " threads";
      }
    }
  }
}

TEST(Fusion, NotRecordedGivesTheSame) {
  const NoGradGuard no_grad;
  for (const Setting& s : settings()) {
    Piece fused(s, "sat", {}, true), plain(s, "sat", {}, false);
    const Tensor y = fused.norm.forward(fused.x, s.relu, fused.residual);
    const Tensor expected = plain.norm.forward(plain.x, s.relu, plain.residual);
    EXPECT_EQ(fused.quantizer->forward(y).values(), plain.quantizer->forward(expected).values()) << s;
    EXPECT_EQ(y.values(), expected.values()) << s;
  }
}

// The learned numbers of batch norm and quantizer may have been updated when y is asked for.
TEST(Fusion, OutputIsThatOfItsForward) {
  Piece fused({}, "sat", {}, true), plain({}, "sat", {}, false);
  const Tensor y = fused.norm.forward(fused.x, true, {});
  fused.quantizer->forward(y);
  const std::vector<float> expected = plain.norm.forward(plain.x, true, {}).values();
  fused.norm.weight().copy_from(Tensor::full({image_shape[1]}, 3));
  fused.norm.bias().copy_from(Tensor::full({image_shape[1]}, 3));
  EXPECT_NE(y.pending(), nullptr);
  EXPECT_EQ(y.values(), expected);
}

// Two quantizers with numbers of their own, as before a block with a projection.
TEST(Fusion, TwoQuantizersOfOneOutput) {
  const auto run = [](bool fuse) {
    Piece piece({.residual = true}, "sat", {}, fuse);
    const auto other = make_quantizer("lsq", Role::activation, 2, LayerKind::convolution, {}, {1, 24, 1, 1});
    Named all;
    for (int step = 0; step < 2; ++step) {
      const Tensor y = piece.norm.forward(piece.x, true, piece.residual);
      const Tensor a = piece.quantizer->forward(y), b = other->forward(y);
      Tape::backward(sum(multiply(add(add(a, b), y), random_tensor(y.shape(), 9))));
    }
    for (const Tensor& p : {piece.x, piece.residual, piece.norm.weight(), piece.norm.bias(),
                            piece.quantizer->parameters()[0], other->parameters()[0]})
      all.emplace_back("gradient", p.grad());
    return all;
  };
  expect_same(run(true), run(false), "two quantizers");
}

// -- memory

// Bytes above what was there before, in tensors like x: after forward, and the most during forward.
struct Usage {
  double held = 0, peak = 0;
};

Usage forward_usage(bool fuse, bool output_used) {
  const Setting s{.output_used = output_used, .shape = {8, 32, 64, 64}};
  Piece piece(s, "sat", {}, fuse);
  Allocator& allocator = backend({}).allocator();
  Usage usage;
  for (int step = 0; step < 2; ++step) {  // the second knows who uses y
    const std::size_t before = allocator.statistics().in_use;
    allocator.reset_peak();
    const Tensor y = piece.norm.forward(piece.x, true, {});
    const Tensor q = piece.quantizer->forward(y);
    if (output_used) y.raw();
    const auto size = static_cast<double>(piece.x.bytes());
    usage.held = static_cast<double>(allocator.statistics().in_use - before) / size;
    usage.peak = static_cast<double>(allocator.statistics().peak_in_use - before) / size;
  }
  return usage;
}

TEST(Fusion, OutputTakesNoMemory) {
  EXPECT_NEAR(forward_usage(true, false).held, 1, 0.05);  // q
  EXPECT_NEAR(forward_usage(true, false).peak, 1, 0.05);
  EXPECT_NEAR(forward_usage(true, true).peak, 2, 0.05);  // and y
  EXPECT_NEAR(forward_usage(false, false).peak, 2, 0.05);
}

TEST(Fusion, BackwardNeedsOnlyTheGradientOfX) {
  for (const char* quantizer : {"sat", "xnor"}) {
    const Border border = std::string_view(quantizer) == "xnor" ? around : Border();
    Piece piece({.shape = {8, 32, 64, 64}, .border = border}, quantizer, {}, true);
    Allocator& allocator = backend({}).allocator();
    const Tensor q = piece.quantizer->forward(piece.norm.forward(piece.x, true, {}), border);
    const Tensor g = random_tensor(q.shape(), 3);
    const std::size_t before = allocator.statistics().in_use;
    allocator.reset_peak();
    Tape::backward(q, g);
    EXPECT_NEAR(static_cast<double>(allocator.statistics().peak_in_use - before) /
                    static_cast<double>(piece.x.bytes()),
                1, 0.05)
        << quantizer;
  }
}

// -- networks

std::vector<float> losses(const std::string& quantizer, bool fuse) {
  const int bits = quantizer == "xnor" ? 1 : 4;
  const auto network = zoo::make_model("resnet20", {.num_classes = 10, .seed = 3});
  quantize_network(*network, {.weight_quantizer = quantizer,
                              .activation_quantizer = quantizer,
                              .weight_bits = bits,
                              .activation_bits = bits,
                              .fuse = fuse});
  network->train();
  SGD optimizer({{.parameters = network->named_parameters()}}, {.learning_rate = 0.002, .momentum = 0.9});
  std::vector<float> result;
  for (std::uint64_t step = 0; step < 10; ++step) {
    const Tensor x = random_tensor({8, 3, 16, 16}, 100 + step);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < 8; ++i) labels.push_back((i * 7 + static_cast<std::int64_t>(step)) % 10);
    const Tensor loss = softmax_cross_entropy((*network)(x), Tensor::from_values<std::int64_t>({8}, labels));
    result.push_back(loss.item());
    optimizer.zero_grad();
    Tape::backward(loss);
    before_update(*network);
    optimizer.step();
    after_update(*network);
  }
  return result;
}

TEST(Fusion, NetworksTrainTheSame) {
  for (const char* quantizer : {"sat", "lsq", "xnor"})
    EXPECT_TRUE(near(losses(quantizer, true), losses(quantizer, false), 1e-4)) << quantizer;
}

TEST(Fusion, IsSetByWrapping) {
  for (const bool fuse : {true, false}) {
    const auto network = zoo::make_model("resnet20", {.num_classes = 10});
    quantize_network(*network, {.fuse = fuse});
    int norms = 0;
    network->visit([&](const std::string&, Module& module) {
      if (const auto* norm = dynamic_cast<BatchNorm2d*>(&module)) {
        ++norms;
        EXPECT_EQ(norm->fuses(), fuse);
        EXPECT_EQ(BatchNorm2d(*norm, {}, {}).fuses(), fuse);  // what a switchable one is made of
      }
    });
    EXPECT_EQ(norms, 21);
  }
}

}  // namespace
}  // namespace qtrain::quant
