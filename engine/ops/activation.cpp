#include "engine/ops/activation.h"

#include "engine/autograd/tape.h"
#include "engine/kernels/math.h"
#include "engine/ops/check.h"
#include "engine/ops/map_tensors.h"

namespace qtrain {
namespace {

// An activation is a struct with a name, `forward(x)` and `derivative(x)`; one that can tell its derivative
// from its output instead has `derivative_from_output(y)`, and then the output is what is kept (it is kept
// anyway by whatever comes next).
// clang-format off
struct Relu {
  static constexpr std::string_view name = "relu";
  QTRAIN_HOST_DEVICE float forward(float x) const { return x < 0 ? 0.0F : x; }
  QTRAIN_HOST_DEVICE float derivative_from_output(float y) const { return y > 0 ? 1.0F : 0.0F; }
};
struct Relu6 {
  static constexpr std::string_view name = "relu6";
  QTRAIN_HOST_DEVICE float forward(float x) const { return clip(x, 0.0F, 6.0F); }
  QTRAIN_HOST_DEVICE float derivative_from_output(float y) const { return y > 0 && y < 6.0F ? 1.0F : 0.0F; }
};
struct LeakyRelu {
  static constexpr std::string_view name = "leaky_relu";
  float slope;
  QTRAIN_HOST_DEVICE float forward(float x) const { return x > 0 ? x : slope * x; }
  QTRAIN_HOST_DEVICE float derivative(float x) const { return x > 0 ? 1.0F : slope; }
};
struct Clamp {
  static constexpr std::string_view name = "clamp";
  float low, high;
  QTRAIN_HOST_DEVICE float forward(float x) const { return clip(x, low, high); }
  QTRAIN_HOST_DEVICE float derivative(float x) const { return x >= low && x <= high ? 1.0F : 0.0F; }
};
struct Sigmoid {
  static constexpr std::string_view name = "sigmoid";
  QTRAIN_HOST_DEVICE float forward(float x) const { return sigmoid_of(x); }
  QTRAIN_HOST_DEVICE float derivative_from_output(float y) const { return y * (1.0F - y); }
};
struct Tanh {
  static constexpr std::string_view name = "tanh";
  QTRAIN_HOST_DEVICE float forward(float x) const { return tanh_of(x); }
  QTRAIN_HOST_DEVICE float derivative_from_output(float y) const { return 1.0F - y * y; }
};
struct Silu {
  static constexpr std::string_view name = "silu";
  QTRAIN_HOST_DEVICE float forward(float x) const { return x * sigmoid_of(x); }
  QTRAIN_HOST_DEVICE float derivative(float x) const { const float s = sigmoid_of(x); return s * (1.0F + x * (1.0F - s)); }
};
struct HardSigmoid {
  static constexpr std::string_view name = "hard_sigmoid";
  QTRAIN_HOST_DEVICE float forward(float x) const { return clip(x + 3.0F, 0.0F, 6.0F) / 6.0F; }
  QTRAIN_HOST_DEVICE float derivative(float x) const { return x > -3.0F && x < 3.0F ? 1.0F / 6.0F : 0.0F; }
};
struct HardSwish {
  static constexpr std::string_view name = "hard_swish";
  QTRAIN_HOST_DEVICE float forward(float x) const { return x * clip(x + 3.0F, 0.0F, 6.0F) / 6.0F; }
  QTRAIN_HOST_DEVICE float derivative(float x) const {
    return x <= -3.0F ? 0.0F : (x >= 3.0F ? 1.0F : (2.0F * x + 3.0F) / 6.0F);
  }
};
// clang-format on

template <class F>
constexpr bool from_output = requires(const F& f) {
  f.derivative_from_output(0.0F);
};

template <class F>
struct Forward {
  F f;
  QTRAIN_HOST_DEVICE float operator()(float x) const { return f.forward(x); }
};

// Takes what the node kept, x or y, and the gradient.
template <class F>
struct Backward {
  F f;
  QTRAIN_HOST_DEVICE float operator()(float kept, float g) const {
    if constexpr (from_output<F>)
      return g * f.derivative_from_output(kept);
    else
      return g * f.derivative(kept);
  }
};

template <class F>
struct ActivationNode final : Node {
  F f{};
  SavedTensor kept{from_output<F> ? "y" : "x"};

  std::string_view name() const override { return F::name; }
  std::vector<SavedTensor*> saved() override { return {&kept}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& grad_y = grad_outputs[0];
    const Tensor basis = kept.get();
    Tensor grad_x = reuse_or_allocate(grad_y);
    map_tensors(Backward<F>{f}, grad_x, basis, grad_y);
    return {grad_x};
  }
};

template <class F>
Tensor activate(const Tensor& x, F f) {
  check::floats(F::name, "x", x);
  Tensor y = Tensor::empty_like(x);
  map_tensors(Forward<F>{f}, y, x);
  return Tape::record<ActivationNode<F>>(F::name, {x}, y, [&](ActivationNode<F>& node) {
    node.f = f;
    node.kept.save(from_output<F> ? y : x);
  });
}

}  // namespace

Tensor relu(const Tensor& x) {
  return activate(x, Relu{});
}
Tensor relu6(const Tensor& x) {
  return activate(x, Relu6{});
}
Tensor leaky_relu(const Tensor& x, float negative_slope) {
  return activate(x, LeakyRelu{negative_slope});
}
Tensor clamp(const Tensor& x, float low, float high) {
  check::value(low <= high, "clamp", "low is above high",
               std::to_string(low) + " and " + std::to_string(high), "low <= high");
  return activate(x, Clamp{low, high});
}
Tensor sigmoid(const Tensor& x) {
  return activate(x, Sigmoid{});
}
Tensor tanh(const Tensor& x) {
  return activate(x, Tanh{});
}
Tensor silu(const Tensor& x) {
  return activate(x, Silu{});
}
Tensor hard_sigmoid(const Tensor& x) {
  return activate(x, HardSigmoid{});
}
Tensor hard_swish(const Tensor& x) {
  return activate(x, HardSwish{});
}

}  // namespace qtrain
