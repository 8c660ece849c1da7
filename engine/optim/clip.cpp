#include "engine/optim/clip.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/math.h"
#include "engine/kernels/multi_update.h"
#include "engine/kernels/update.h"

namespace qtrain {
namespace {

void require_bound(float bound) {
  if (!(bound >= 0))
    throw ValueError({.where = "gradient clipping",
                      .what = "the bound is out of range",
                      .got = fmt::format("{}", bound),
                      .expected = "0 or more",
                      .hint = ""});
}

// The gradient as elements that only this parameter sees: two parameters may have been given the same tensor
// by backward, which would otherwise be changed twice.
Tensor own_gradient(const Tensor& parameter) {
  Tensor gradient = parameter.grad();
  parameter.set_grad({});
  if (!gradient.is_sole_owner()) gradient = gradient.clone();
  parameter.set_grad(gradient);
  return gradient;
}

struct Square {
  QTRAIN_HOST_DEVICE Terms<1> operator()(float g) const { return {g * g}; }
};

struct Root {
  QTRAIN_HOST_DEVICE void operator()(float& total) const { total = sqrtf(total); }
};

struct Shrink {
  const float* norm;  // on the device
  float max_norm;
  float factor = 1;

  QTRAIN_HOST_DEVICE void prepare() {
    const float wanted = max_norm / (*norm + 1e-6F);
    factor = wanted > 1 ? 1.0F : wanted;
  }
  QTRAIN_HOST_DEVICE void operator()(float& g) const { g *= factor; }
};

struct Limit {
  float bound;
  QTRAIN_HOST_DEVICE void operator()(float& g) const { g = clip(g, -bound, bound); }
};

// The gradients, of one device. `owned`: as elements that only their parameters see.
std::vector<Tensor> gradients_of(std::span<const Tensor> parameters, bool owned) {
  std::vector<Tensor> gradients;
  for (const Tensor& p : parameters) {
    if (!p.grad().defined()) continue;
    gradients.push_back(owned ? own_gradient(p) : p.grad());
    if (gradients.back().device() != gradients.front().device())
      throw DeviceError({.where = "gradient clipping",
                         .what = "gradients on different devices",
                         .got = gradients.back().device().str(),
                         .expected = gradients.front().device().str(),
                         .hint = ""});
  }
  return gradients;
}

TensorSets<float> sets_of(const std::vector<Tensor>& tensors) {
  TensorSets<float> sets;
  for (const Tensor& t : tensors) sets.push_back({.arrays = {t.data<float>()}, .count = t.numel()});
  return sets;
}

template <class F>
void change_gradients(std::span<const Tensor> parameters, const F& f) {
  const std::vector<Tensor> gradients = gradients_of(parameters, true);
  if (gradients.empty()) return;
  multi_update(backend(gradients.front().device()).stream(), sets_of(gradients), f);
  for (const Tensor& g : gradients) g.bump_version();
}

}  // namespace

Tensor gradient_norm(std::span<const Tensor> parameters) {
  const std::vector<Tensor> gradients = gradients_of(parameters, false);
  if (gradients.empty())
    return Tensor::scalar(0, parameters.empty() ? Device{} : parameters.front().device());
  const Device device = gradients.front().device();
  const Stream stream = backend(device).stream();
  Tensor norm = Tensor::empty({}, DType::f32, device);
  multi_reduce<1, Sum>(stream, sets_of(gradients), Square{}, norm.data<float>());
  update(stream, 1, Root{}, norm.data<float>());
  return norm;
}

Tensor clip_gradient_norm(std::span<const Tensor> parameters, float max_norm) {
  require_bound(max_norm);
  Tensor norm = gradient_norm(parameters);
  change_gradients(parameters, Shrink{.norm = norm.data<float>(), .max_norm = max_norm});
  return norm;
}

void clip_gradient_values(std::span<const Tensor> parameters, float limit) {
  require_bound(limit);
  change_gradients(parameters, Limit{limit});
}

}  // namespace qtrain
