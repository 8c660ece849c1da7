#include "engine/ops/matmul.h"

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/cast.h"
#include "engine/ops/check.h"

namespace qtrain {
namespace {

Tensor product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
               const Tensor& bias = {}) {
  Tensor c = Tensor::empty({a.dim(transpose_a ? 1 : 0), b.dim(transpose_b ? 0 : 1)}, a.dtype(), a.device());
  Backend& on = backend(a.device());
  on.matmul(on.stream(), a, transpose_a, b, transpose_b, bias, c);
  return c;
}

// c = a b: dL/da = g b^T, dL/db = a^T g.
struct MatmulNode final : Node {
  SavedTensor a{"a"};
  SavedTensor b{"b"};
  std::string_view name() const override { return "matmul"; }
  std::vector<SavedTensor*> saved() override { return {&a, &b}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    std::vector<Tensor> grads(2);
    if (needs_grad(0)) grads[0] = product(g, false, b.get(), true);
    if (needs_grad(1)) grads[1] = product(a.get(), true, g, false);
    return grads;
  }
};

// y = x w^T + bias: dL/dx = g w, dL/dw = g^T x, dL/dbias = the sum of g's rows.
struct LinearNode final : Node {
  SavedTensor x{"x"};
  SavedTensor weight{"weight"};
  std::string_view name() const override { return "linear"; }
  std::vector<SavedTensor*> saved() override { return {&x, &weight}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    std::vector<Tensor> grads(3);
    if (needs_grad(0)) grads[0] = product(g, false, weight.get(), false);
    if (needs_grad(1)) grads[1] = product(g, true, x.get(), false);
    if (needs_grad(2)) grads[2] = sum_to_shape(g, {g.dim(1)});
    return grads;
  }
};

void check_matrix(std::string_view op, std::string_view name, const Tensor& t) {
  check::floats(op, name, t);
  check::rank(op, name, t, {2});
  check::sizes(t.numel() > 0, op, "an empty matrix", t.str(), "at least one element");
}

// All of one element type.
Tensor project(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return Tape::record<LinearNode>("linear", {x, weight, bias}, product(x, false, weight, true, bias),
                                  [&](LinearNode& node) {
                                    if (weight.requires_grad()) node.x.save(x);
                                    if (x.requires_grad()) node.weight.save(weight);
                                  });
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_matrix("matmul", "a", a);
  check_matrix("matmul", "b", b);
  check::tensor("matmul", "b", b, a.dtype());
  check::same_device("matmul", {a, b});
  check::sizes(a.dim(1) == b.dim(0), "matmul", "inner sizes don't match", a.str() + " and " + b.str(),
               "columns of a = rows of b");
  return Tape::record<MatmulNode>("matmul", {a, b}, product(a, false, b, false), [&](MatmulNode& node) {
    node.a.save(a);
    node.b.save(b);
  });
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_matrix("linear", "x", x);
  check_matrix("linear", "weight", weight);
  check::sizes(x.dim(1) == weight.dim(1), "linear", "input features don't match",
               x.str() + " and " + weight.str(), "x [N, in] and weight [out, in]");
  if (bias.defined()) {
    check::floats("linear", "bias", bias);
    check::shape("linear", "bias", bias, {weight.dim(0)});
  }
  check::same_device("linear", {x, weight, bias});
  return project(x, cast(weight, x.dtype()), bias.defined() ? cast(bias, x.dtype()) : bias);
}

}  // namespace qtrain
