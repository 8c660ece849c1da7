// Every quantizer of activations in a layer whose input is bf16, against the same layer with the same numbers
// in float32: quantizers compute in float32 either way, whether they take bf16 themselves or stand between
// two casts.
#include <gtest/gtest.h>

#include "engine/kernels/element.h"
#include "engine/ops/cast.h"
#include "quant/quantized_layers.h"
#include "quant/registry.h"
#include "tests/engine/support.h"
#include "tests/quant/support.h"

namespace qtrain::quant {
namespace {

using testing_support::identical;
using testing_support::near;
using testing_support::normal_values;

constexpr double rounding = 1.0 / 256;
const Shape shape{4, 1, 9, 7};

std::vector<float> rounded(std::vector<float> values) {
  for (float& v : values) v = to_float(to_bfloat16(v));
  return values;
}

struct Outcome {
  std::vector<float> y, grad_x;
  std::vector<std::vector<float>> grad_parameters;
};

// A 1x1 convolution with weight 1, padded by a pixel: its output is what the quantizer gives.
Outcome run(const std::shared_ptr<Quantizer>& quantizer, DType dtype) {
  const Conv2d conv(Tensor::full({1, 1, 1, 1}, 1), Tensor(), {.pad_begin = {1, 1}, .pad_end = {1, 1}});
  QuantizedConv2d layer(conv, {.weight = nullptr, .input = quantizer});
  Tensor x = Tensor::from_values(shape, rounded(normal_values(static_cast<std::size_t>(shape.numel()), 1)));
  x.set_requires_grad(true);
  const Tensor y = layer.forward(cast(x, dtype));
  EXPECT_EQ(y.dtype(), dtype);
  const auto cotangent = rounded(normal_values(static_cast<std::size_t>(y.numel()), 1, 2));
  Tape::backward(y, cast(Tensor::from_values(y.shape(), cotangent), dtype));
  Outcome outcome{.y = cast(y, DType::f32).values(), .grad_x = x.grad().values()};
  for (const Tensor& p : quantizer->parameters()) {
    EXPECT_TRUE(!p.grad().defined() || p.grad().dtype() == DType::f32);
    outcome.grad_parameters.push_back(p.grad().defined() ? p.grad().values() : std::vector<float>());
  }
  return outcome;
}

std::shared_ptr<Quantizer> make(const std::string& name) {
  for (const int bits : {4, 2, 1, 3, 8}) try {
      return make_quantizer(name, Role::activation, bits, LayerKind::convolution, {});
    } catch (const ValueError&) {
    }
  return nullptr;
}

TEST(QuantizersInBf16, ComputeInFloat32AndRound) {
  std::size_t direct = 0;
  std::size_t all = 0;
  for (const QuantizerInfo* info : quantizers()) {
    if (!info->has_role(Role::activation) || info->name == "none") continue;
    SCOPED_TRACE(info->name);
    const std::shared_ptr<Quantizer> quantizer = make(info->name);
    ASSERT_NE(quantizer, nullptr);
    direct += quantizer->takes_bf16() ? 1 : 0;
    ++all;
    const Outcome wide = run(make(info->name), DType::f32);
    const Outcome narrow = run(quantizer, DType::bf16);
    EXPECT_TRUE(identical(narrow.y, rounded(wide.y)));
    EXPECT_TRUE(near(narrow.grad_x, wide.grad_x, rounding));
    ASSERT_EQ(narrow.grad_parameters.size(), wide.grad_parameters.size());
    for (std::size_t i = 0; i < wide.grad_parameters.size(); ++i)
      EXPECT_TRUE(near(narrow.grad_parameters[i], wide.grad_parameters[i], rounding)) << "parameter " << i;
  }
  EXPECT_GT(direct, 0U);
  EXPECT_GT(all, direct) << "somebody needs the casts";
}

}  // namespace
}  // namespace qtrain::quant
