#include "engine/ops/batch_norm.h"

#include <cmath>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/ops/check.h"

namespace qtrain {
namespace {

// With xhat = (x - mean) invstd and g = dL/dy behind the ReLU, n elements a channel:
//   dL/dbeta = sum g, dL/dgamma = sum g xhat, dL/dresidual = g,
//   dL/dx = gamma invstd (g - mean(g) - xhat mean(g xhat)); in evaluation only gamma invstd g.
struct BatchNormNode final : Node {
  SavedTensor x{"x"};
  SavedTensor gamma{"gamma"};
  SavedTensor beta{"beta"};
  SavedTensor mean{"mean"};
  SavedTensor invstd{"invstd"};
  SavedTensor y{"y"};  // only where a ReLU follows a residual: elsewhere its sign is computed again from x
  bool relu = false;
  bool has_residual = false;
  bool training = true;

  std::string_view name() const override { return "batch_norm"; }
  std::vector<SavedTensor*> saved() override { return {&x, &gamma, &beta, &mean, &invstd, &y}; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& grad_y = grad_outputs[0];
    const Tensor output = y.defined() ? y.get() : Tensor();
    BatchNormArguments a{x.get(), gamma.get(), beta.get(), output, mean.get(), invstd.get(), relu};
    BatchNormGradients grads;
    const auto channels = a.gamma.shape();
    if (needs_grad(0)) grads.x = Tensor::empty_like(a.x);
    if (needs_grad(1)) grads.gamma = Tensor::empty(channels, DType::f32, grad_y.device());
    if (needs_grad(2)) grads.beta = Tensor::empty(channels, DType::f32, grad_y.device());
    // Without a ReLU the residual's gradient is grad_y itself.
    const bool masked_residual = has_residual && relu && needs_grad(3);
    if (masked_residual) grads.residual = Tensor::empty_like(a.x);
    Backend& b = backend(grad_y.device());
    b.batch_norm_backward(b.stream(), a, output, grad_y, training, grads);
    return {grads.x, grads.gamma, grads.beta,
            masked_residual ? grads.residual : (has_residual ? grad_y : Tensor())};
  }
};

struct InverseRoot {
  float epsilon;
  QTRAIN_HOST_DEVICE float operator()(float variance) const { return 1.0F / sqrtf(variance + epsilon); }
};

void check_arguments(const Tensor& x, const BatchNormState& s, const Tensor& residual, bool running) {
  constexpr std::string_view op = "batch_norm";
  check::tensor(op, "x", x);
  check::rank(op, "x", x, {2, 4});
  check::sizes(x.numel() > 0, op, "nothing to normalize", x.str(), "at least one element");
  const Shape channels{x.dim(1)};
  for (const auto& [name, t, needed] : {std::tuple{"gamma", s.gamma, true},
                                        {"beta", s.beta, true},
                                        {"running_mean", s.running_mean, running},
                                        {"running_variance", s.running_variance, running}}) {
    if (!needed && !t.defined()) continue;
    check::tensor(op, name, t);
    check::shape(op, name, t, channels);
  }
  if (residual.defined()) {
    check::tensor(op, "residual", residual);
    check::shape(op, "residual", residual, x.shape());
  }
  check::same_device(op, {x, s.gamma, s.beta, s.running_mean, s.running_variance, residual});
}

Tensor record(const BatchNormArguments& a, const Tensor& y, bool training) {
  return Tape::record<BatchNormNode>("batch_norm", {a.x, a.gamma, a.beta, a.residual}, y,
                                     [&](BatchNormNode& node) {
                                       node.x.save(a.x);
                                       node.gamma.save(a.gamma);
                                       node.beta.save(a.beta);
                                       node.mean.save(a.mean);
                                       node.invstd.save(a.invstd);
                                       node.relu = a.relu;
                                       node.has_residual = a.residual.defined();
                                       node.training = training;
                                       if (node.has_residual && a.relu) node.y.save(y);
                                     });
}

}  // namespace

Tensor batch_norm_training(const Tensor& x, const BatchNormState& state, const BatchNormOptions& options,
                           const Tensor& residual) {
  check_arguments(x, state, residual, false);
  check::sizes(x.numel() > x.dim(1), "batch_norm", "one value a channel has no variance", x.str(),
               "more than one value a channel", "use a larger batch");
  const Shape channels{x.dim(1)};
  const BatchNormArguments a{x,
                             state.gamma,
                             state.beta,
                             residual,
                             Tensor::empty(channels, DType::f32, x.device()),
                             Tensor::empty(channels, DType::f32, x.device()),
                             options.relu};
  Tensor y = Tensor::empty_like(x);
  Backend& b = backend(x.device());
  b.batch_norm_training(b.stream(), a, options.epsilon, options.momentum, state.running_mean,
                        state.running_variance, y);
  for (const Tensor& running : {state.running_mean, state.running_variance})
    if (running.defined()) running.bump_version();
  return record(a, y, true);
}

Tensor batch_norm_evaluation(const Tensor& x, const BatchNormState& state, const BatchNormOptions& options,
                             const Tensor& residual) {
  check_arguments(x, state, residual, true);
  Backend& b = backend(x.device());
  BatchNormArguments a{x,           state.gamma,        state.beta,
                       residual,    state.running_mean, Tensor::empty_like(state.running_variance),
                       options.relu};
  map(b.stream(), a.invstd.numel(), InverseRoot{options.epsilon}, a.invstd.data<float>(),
      state.running_variance.data<float>());
  Tensor y = Tensor::empty_like(x);
  b.batch_norm_evaluation(b.stream(), a, y);
  return record(a, y, false);
}

}  // namespace qtrain
