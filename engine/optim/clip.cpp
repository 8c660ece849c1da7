#include "engine/optim/clip.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/math.h"
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

// total += part; a running sum of squares, one element.
struct Accumulate {
  QTRAIN_HOST_DEVICE void operator()(float& total, float part) const { total += part; }
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

}  // namespace

Tensor gradient_norm(std::span<const Tensor> parameters) {
  std::vector<Tensor> gradients;
  for (const Tensor& p : parameters)
    if (p.grad().defined()) gradients.push_back(p.grad());
  if (gradients.empty()) return Tensor::scalar(0);
  const Device device = gradients.front().device();
  for (const Tensor& g : gradients)
    if (g.device() != device)
      throw DeviceError({.where = "gradient clipping",
                         .what = "gradients on different devices",
                         .got = g.device().str(),
                         .expected = device.str(),
                         .hint = ""});
  const Stream stream = backend(device).stream();
  Tensor norm = Tensor::zeros({}, DType::f32, device);
  const Tensor part = Tensor::empty({}, DType::f32, device);
  for (const Tensor& g : gradients) {
    reduce<1, Sum>(stream, g.numel(), Square{}, part.data<float>(),
                   static_cast<const float*>(g.data<float>()));
    update(stream, 1, Accumulate{}, norm.data<float>(), static_cast<const float*>(part.data<float>()));
  }
  update(stream, 1, Root{}, norm.data<float>());
  return norm;
}

Tensor clip_gradient_norm(std::span<const Tensor> parameters, float max_norm) {
  require_bound(max_norm);
  Tensor norm = gradient_norm(parameters);
  for (const Tensor& p : parameters) {
    if (!p.grad().defined()) continue;
    const Tensor g = own_gradient(p);
    update(backend(g.device()).stream(), g.numel(), Shrink{.norm = norm.data<float>(), .max_norm = max_norm},
           g.data<float>());
    g.bump_version();
  }
  return norm;
}

void clip_gradient_values(std::span<const Tensor> parameters, float limit) {
  require_bound(limit);
  for (const Tensor& p : parameters) {
    if (!p.grad().defined()) continue;
    const Tensor g = own_gradient(p);
    update(backend(g.device()).stream(), g.numel(), Limit{limit}, g.data<float>());
    g.bump_version();
  }
}

}  // namespace qtrain
