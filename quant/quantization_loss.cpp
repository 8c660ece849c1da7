#include "quant/quantization_loss.h"

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/math.h"
#include "engine/ops/check.h"

namespace qtrain::quant {
namespace {

constexpr std::string_view op = "quantization loss";

struct AbsoluteError {
  QTRAIN_HOST_DEVICE Terms<2> operator()(float x, float y) const { return {fabsf(x - y), 0.0F}; }
};
struct SquaredError {
  QTRAIN_HOST_DEVICE Terms<2> operator()(float x, float y) const { return {(x - y) * (x - y), 0.0F}; }
};
struct Products {
  QTRAIN_HOST_DEVICE Terms<2> operator()(float x, float y) const { return {x * y, y * y}; }
};

// The loss from two sums.
struct LossOfSums {
  bool is_ratio;
  float share;
  QTRAIN_HOST_DEVICE float operator()(float a, float b) const {
    if (is_ratio) return b != 0 ? fabsf(a / b - 1.0F) : 0.0F;
    return a * share;
  }
};

// dL/dx = s (a_x x + b_x y + sign term), and the same for y: every kind is of this form.
struct Slope {
  QuantizationLoss kind = QuantizationLoss::l1;
  bool of_x = true;
  float share = 1;         // 1/n
  const float* sums;       // of the forward
  const float* grad_loss;  // a scalar
  float for_x = 0, for_y = 0, for_sign = 0;
  QTRAIN_HOST_DEVICE void prepare() {
    const float g = *grad_loss;
    const float side = of_x ? g : -g;
    if (kind == QuantizationLoss::l1) for_sign = side * share;
    if (kind == QuantizationLoss::l2) {
      for_x = 2.0F * side * share;
      for_y = -for_x;
    }
    if (kind == QuantizationLoss::qdl && sums[1] != 0) {
      const float ratio = sums[0] / sums[1];
      const float sign = g * sign_of(ratio - 1.0F);
      for_x = of_x ? 0.0F : sign / sums[1];
      for_y = of_x ? sign / sums[1] : -2.0F * sign * ratio / sums[1];
    }
  }
  QTRAIN_HOST_DEVICE float operator()(float x, float y) const {
    return for_x * x + for_y * y + for_sign * sign_of(x - y);
  }
};

struct QuantizationLossNode final : Node {
  QuantizationLoss kind = QuantizationLoss::l1;
  SavedTensor x{"x"};
  SavedTensor y{"y"};
  SavedTensor sums{"sums"};
  std::string_view name() const override { return op; }
  std::vector<SavedTensor*> saved() override { return {&x, &y, &sums}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor before = x.get();
    const Tensor after = y.get();
    const Tensor s = sums.get();
    std::vector<Tensor> grads(2);
    for (const std::size_t i : {0U, 1U}) {
      if (!needs_grad(i)) continue;
      grads[i] = Tensor::empty_like(before);
      map(backend(before.device()).stream(), before.numel(),
          Slope{.kind = kind,
                .of_x = i == 0,
                .share = 1.0F / static_cast<float>(before.numel()),
                .sums = s.data<float>(),
                .grad_loss = grad_outputs[0].data<float>()},
          grads[i].data<float>(), before.data<float>(), after.data<float>());
    }
    return grads;
  }
};

}  // namespace

QuantizationLoss parse_quantization_loss(std::string_view name) {
  if (name == "none") return QuantizationLoss::none;
  if (name == "l1") return QuantizationLoss::l1;
  if (name == "l2") return QuantizationLoss::l2;
  if (name == "qdl") return QuantizationLoss::qdl;
  throw ValueError({.where = "quantization loss",
                    .what = "unknown kind",
                    .got = std::string(name),
                    .expected = "none, l1, l2 or qdl",
                    .hint = ""});
}

Tensor quantization_loss(QuantizationLoss kind, const Tensor& x, const Tensor& y) {
  check::tensor(op, "x", x);
  check::tensor(op, "y", y);
  check::shape(op, "y", y, x.shape());
  check::same_device(op, {x, y});
  const Stream stream = backend(x.device()).stream();
  Tensor loss = Tensor::empty({1}, DType::f32, x.device());
  Tensor sums = Tensor::empty({2}, DType::f32, x.device());
  const auto sum = [&](auto math) {
    reduce<2, Sum>(stream, x.numel(), math, sums.data<float>(), x.data<float>(), y.data<float>());
  };
  if (kind == QuantizationLoss::l1) sum(AbsoluteError());
  if (kind == QuantizationLoss::l2) sum(SquaredError());
  if (kind == QuantizationLoss::qdl) sum(Products());
  const LossOfSums of_sums{kind == QuantizationLoss::qdl, 1.0F / static_cast<float>(x.numel())};
  map(stream, 1, of_sums, loss.data<float>(), sums.data<float>(), sums.data<float>() + 1);
  return Tape::record<QuantizationLossNode>(op, {x, y}, loss, [&](QuantizationLossNode& node) {
    node.kind = kind;
    node.x.save(x);
    node.y.save(y);
    node.sums.save(sums);
  });
}

}  // namespace qtrain::quant
