#include "engine/ops/batch_norm.h"

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/batch_norm.h"
#include "engine/ops/batch_norm_fusion.h"
#include "engine/ops/check.h"

namespace qtrain {
namespace {

// The formulas are in engine/kernels/batch_norm.h.
struct BatchNormNode final : Node {
  SavedTensor x{"x"};
  SavedTensor coefficients{"coefficients"};
  SavedTensor y{"y"};  // only behind a residual: elsewhere its sign is computed again from x
  bool relu = false;
  bool has_residual = false;
  bool training = true;
  bool fuses = false;

  std::string_view name() const override { return "batch_norm"; }
  std::vector<SavedTensor*> saved() override { return {&x, &coefficients, &y}; }
  bool takes_deferred_gradient() const override { return fuses; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& grad_y = grad_outputs[0];
    const auto deferred = std::dynamic_pointer_cast<DeferredBatchNormGradient>(grad_y.pending());
    // Without a ReLU the residual's gradient is grad_y itself, if that is there.
    const bool own_residual = has_residual && needs_grad(3) && (relu || deferred != nullptr);
    BatchNormBackward a{
        .of = {.x = x.get(), .residual = {}, .coefficients = coefficients.get(), .relu = relu},
        .y = {},
        .grad = {},
        .addend = {},
        .training = training,
        .gradients = {}};
    BatchNormGradients& grads = a.gradients;
    if (needs_grad(0)) {
      if (deferred != nullptr)
        grads.x = deferred->place_for_grad_x();
      else
        grads.x = has_residual && !own_residual ? Tensor::empty_like(grad_y) : reuse_or_allocate(grad_y);
    }
    if (y.defined() && (relu || deferred != nullptr)) {
      const Tensor output = y.get();
      if (const auto pending = fusable_batch_norm(output))
        a.of.residual = pending->of().residual;
      else
        a.y = output;
    }
    const Shape channels{a.of.x.dim(1)};
    if (needs_grad(1)) grads.gamma = Tensor::empty(channels, DType::f32, grad_y.device());
    if (needs_grad(2)) grads.beta = Tensor::empty(channels, DType::f32, grad_y.device());
    if (own_residual) grads.residual = Tensor::empty_like(a.of.x);
    if (deferred != nullptr) {
      deferred->batch_norm_backward(a);
    } else {
      a.grad = grad_y;
      batch_norm_backward<0>(backend(grad_y.device()).stream(), a, Identity{});
    }
    return {grads.x, grads.gamma, grads.beta,
            own_residual ? grads.residual : (has_residual ? grad_y : Tensor())};
  }
};

void check_arguments(const Tensor& x, const BatchNormState& s, const Tensor& residual, bool running) {
  constexpr std::string_view op = "batch_norm";
  check::floats(op, "x", x);
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
    check::tensor(op, "residual", residual, x.dtype());
    check::shape(op, "residual", residual, x.shape());
  }
  check::same_device(op, {x, s.gamma, s.beta, s.running_mean, s.running_variance, residual});
}

// y, computed or pending, on the tape.
Tensor finish(const BatchNormOutput& of, const BatchNormState& state, const BatchNormOptions& options,
              bool training) {
  Tensor y;
  if (options.fusion != nullptr) {
    y = DeferredBatchNorm::output(of, options.fusion);
  } else {
    y = Tensor::empty_like(of.x);
    batch_norm_output(backend(of.x.device()).stream(), of, y);
  }
  return Tape::record<BatchNormNode>("batch_norm", {of.x, state.gamma, state.beta, of.residual}, y,
                                     [&](BatchNormNode& node) {
                                       node.x.save(of.x);
                                       node.coefficients.save(of.coefficients);
                                       node.relu = of.relu;
                                       node.has_residual = of.residual.defined();
                                       node.training = training;
                                       node.fuses = options.fusion != nullptr;
                                       if (node.has_residual && (of.relu || node.fuses)) node.y.save(y);
                                     });
}

BatchNormOutput recipe(const Tensor& x, const Tensor& residual, bool relu) {
  return {x, residual, Tensor::empty({coefficient_rows, x.dim(1)}, DType::f32, x.device()), relu};
}

}  // namespace

Tensor batch_norm_training(const Tensor& x, const BatchNormState& state, const BatchNormOptions& options,
                           const Tensor& residual) {
  check_arguments(x, state, residual, false);
  check::sizes(x.numel() > x.dim(1), "batch_norm", "one value a channel has no variance", x.str(),
               "more than one value a channel", "use a larger batch");
  const BatchNormOutput of = recipe(x, residual, options.relu);
  batch_norm_statistics(backend(x.device()).stream(), x, state.gamma, state.beta, options.epsilon,
                        options.momentum, state.running_mean, state.running_variance, of.coefficients);
  for (const Tensor& running : {state.running_mean, state.running_variance})
    if (running.defined()) running.bump_version();
  return finish(of, state, options, true);
}

Tensor batch_norm_evaluation(const Tensor& x, const BatchNormState& state, const BatchNormOptions& options,
                             const Tensor& residual) {
  check_arguments(x, state, residual, true);
  const BatchNormOutput of = recipe(x, residual, options.relu);
  batch_norm_coefficients(backend(x.device()).stream(), state.gamma, state.beta, state.running_mean,
                          state.running_variance, options.epsilon, of.coefficients);
  return finish(of, state, options, false);
}

}  // namespace qtrain
