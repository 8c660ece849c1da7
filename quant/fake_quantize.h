// Turns the scalar math of a quantizer into an op: one pass over memory forward, one backward, with the
// gradients of K scalar parameters summed up in the same pass. Nothing is saved but the input; what comes
// after gets its copy of the output made again when backward needs it.
//
// The math is a copyable struct F, compiled for every device:
//   std::array<const float*, K> parameters;     set by fake_quantize(); device pointers
//   void prepare();                             reads them, once before a loop
//   float forward(float x) const;               y
//   Mapped<K> backward(float x, float g) const; {dL/dx, {dL/dparameter_k of this element}}, g = dL/dy
#pragma once

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/math.h"
#include "engine/ops/check.h"

namespace qtrain::quant {

namespace detail {

template <class F, int K>
F bound(F f, const std::array<Tensor, K>& parameters) {
  for (std::size_t k = 0; k < static_cast<std::size_t>(K); ++k)
    f.parameters[k] = parameters[k].template data<float>();
  return f;
}

template <class F>
struct ForwardOf {
  F f;
  QTRAIN_HOST_DEVICE void prepare() { f.prepare(); }
  QTRAIN_HOST_DEVICE float operator()(float x) const { return f.forward(x); }
};

template <class F>
struct BackwardOf {
  F f;
  QTRAIN_HOST_DEVICE void prepare() { f.prepare(); }
  QTRAIN_HOST_DEVICE auto operator()(float x, float g) const { return f.backward(x, g); }
};

template <class F, int K>
Tensor run_forward(const F& f, const Tensor& x) {
  Tensor y = Tensor::empty_like(x);
  map(backend(x.device()).stream(), x.numel(), ForwardOf<F>{f}, y.data<float>(), x.data<float>());
  return y;
}

template <class F, int K>
struct FakeQuantizeNode final : Node {
  F f{};
  std::string_view op;
  SavedTensor x{"x"};
  std::array<SavedTensor, K> parameters = make_slots(std::make_index_sequence<K>());

  std::string_view name() const override { return op; }
  std::vector<SavedTensor*> saved() override {
    std::vector<SavedTensor*> all{&x};
    for (SavedTensor& p : parameters) all.push_back(&p);
    return all;
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(std::size_t /*output*/) override { return run_forward<F, K>(with_parameters(), x.get()); }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    const Tensor input = x.get();
    std::vector<Tensor> grads(1 + K);
    grads[0] = reuse_or_allocate(g);
    Tensor sums = Tensor::empty({K}, DType::f32, g.device());
    map_reduce<K>(backend(g.device()).stream(), g.numel(), BackwardOf<F>{with_parameters()},
                  sums.data<float>(), grads[0].data<float>(), input.data<float>(), g.data<float>());
    if constexpr (K == 1) {
      grads[1] = sums;
    } else {
      const Stream stream = backend(g.device()).stream();
      for (std::size_t k = 0; k < static_cast<std::size_t>(K); ++k) {
        grads[1 + k] = Tensor::empty({1}, DType::f32, g.device());
        map(
            stream, 1, [] QTRAIN_LAMBDA(float v) { return v; }, grads[1 + k].template data<float>(),
            sums.data<float>() + k);
      }
    }
    return grads;
  }

 private:
  template <std::size_t... I>
  static std::array<SavedTensor, K> make_slots(std::index_sequence<I...>) {
    return {(static_cast<void>(I), SavedTensor("parameter"))...};
  }
  F with_parameters() const {
    std::array<Tensor, K> tensors;
    for (std::size_t k = 0; k < static_cast<std::size_t>(K); ++k) tensors[k] = parameters[k].get();
    return bound<F, K>(f, tensors);
  }
};

}  // namespace detail

// y = f.forward(x) elementwise; parameters are f32 [1] on x's device.
template <int K, class F>
Tensor fake_quantize(std::string_view op, const Tensor& x, F f, const std::array<Tensor, K>& parameters) {
  check::tensor(op, "x", x);
  for (const Tensor& p : parameters) {
    check::tensor(op, "parameter", p);
    check::shape(op, "parameter", p, {1});
    check::same_device(op, {x, p});
  }
  Tensor y = detail::run_forward<F, K>(detail::bound<F, K>(f, parameters), x);
  auto node = std::make_shared<detail::FakeQuantizeNode<F, K>>();
  std::array<Tensor, 1 + K> inputs;
  inputs[0] = x;
  std::copy(parameters.begin(), parameters.end(), inputs.begin() + 1);
  node->f = f;
  node->op = op;
  if (Tape::needs_recording(inputs)) {
    node->x.save(x);
    for (std::size_t k = 0; k < static_cast<std::size_t>(K); ++k) node->parameters[k].save(parameters[k]);
  }
  Tape::record(node, inputs, std::span<const Tensor>(&y, 1));
  return y;
}

}  // namespace qtrain::quant
