#include "engine/ops/arithmetic.h"

#include <algorithm>
#include <array>

#include "engine/autograd/tape.h"
#include "engine/ops/cast.h"
#include "engine/ops/check.h"
#include "engine/ops/map_tensors.h"
#include "engine/ops/strides.h"

namespace qtrain {
namespace {

Shape broadcast_shape(std::string_view op, const Tensor& a, const Tensor& b) {
  const std::size_t rank = std::max(a.rank(), b.rank());
  std::array<std::int64_t, Shape::max_rank> dims{};
  for (std::size_t i = 0; i < rank; ++i) {  // from the last dimension
    const std::int64_t da = i < a.rank() ? a.dim(a.rank() - 1 - i) : 1;
    const std::int64_t db = i < b.rank() ? b.dim(b.rank() - 1 - i) : 1;
    check::sizes(da == db || da == 1 || db == 1, op, "sizes don't broadcast", a.str() + " and " + b.str(),
                 "equal sizes, or 1");
    dims[rank - 1 - i] = da == 1 ? db : da;
  }
  return Shape(std::span<const std::int64_t>(dims.data(), rank));
}

// The operations, with their partial derivatives at (a, b).
// clang-format off
struct Add {
  static constexpr std::string_view name = "add";
  static constexpr bool needs_operands = false;
  QTRAIN_HOST_DEVICE float operator()(float a, float b) const { return a + b; }
  QTRAIN_HOST_DEVICE float da(float, float) const { return 1; }
  QTRAIN_HOST_DEVICE float db(float, float) const { return 1; }
};
struct Subtract {
  static constexpr std::string_view name = "subtract";
  static constexpr bool needs_operands = false;
  QTRAIN_HOST_DEVICE float operator()(float a, float b) const { return a - b; }
  QTRAIN_HOST_DEVICE float da(float, float) const { return 1; }
  QTRAIN_HOST_DEVICE float db(float, float) const { return -1; }
};
struct Multiply {
  static constexpr std::string_view name = "multiply";
  static constexpr bool needs_operands = true;
  QTRAIN_HOST_DEVICE float operator()(float a, float b) const { return a * b; }
  QTRAIN_HOST_DEVICE float da(float, float b) const { return b; }
  QTRAIN_HOST_DEVICE float db(float a, float) const { return a; }
};
struct Divide {
  static constexpr std::string_view name = "divide";
  static constexpr bool needs_operands = true;
  QTRAIN_HOST_DEVICE float operator()(float a, float b) const { return a / b; }
  QTRAIN_HOST_DEVICE float da(float, float b) const { return 1 / b; }
  QTRAIN_HOST_DEVICE float db(float a, float b) const { return -(a / b) / b; }
};
// clang-format on

template <class F>
struct DerivativeOfA {
  QTRAIN_HOST_DEVICE float operator()(float a, float b) const { return F{}.da(a, b); }
};
template <class F>
struct DerivativeOfB {
  QTRAIN_HOST_DEVICE float operator()(float a, float b) const { return F{}.db(a, b); }
};

template <class F, class T>
struct Broadcast {
  F f;
  StoredOrder order;
  StoredOrder::Strides a_strides, b_strides;
  const T* a;
  const T* b;
  T* y;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    store(y[i], f(load(a[order.offset(i, a_strides)]), load(b[order.offset(i, b_strides)])));
  }
};

// out = f(a, b) with broadcasting. Equal shapes are one straight loop; otherwise each output element finds
// its operands through their strides, with stride 0 along repeated dimensions.
template <class F>
void run_broadcast(F f, const Tensor& a, const Tensor& b, const Tensor& out) {
  if (a.shape() == b.shape()) return map_tensors(f, out, a, b);
  const StoredOrder order(out.shape());
  with_float_type(out.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(backend(out.device()).stream(), out.numel(),
             Broadcast<F, T>{f, order, order.strides_of(a.shape()), order.strides_of(b.shape()), a.data<T>(),
                             b.data<T>(), out.data<T>()});
  });
}

template <class F>
struct BinaryNode final : Node {
  SavedTensor a{"a"};
  SavedTensor b{"b"};
  Shape a_shape, b_shape;

  std::string_view name() const override { return F::name; }
  std::vector<SavedTensor*> saved() override { return {&a, &b}; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    std::vector<Tensor> grads(2);
    if (needs_grad(0)) grads[0] = sum_to_shape(times_derivative(g, DerivativeOfA<F>(), 1.0F), a_shape);
    if (needs_grad(1))
      grads[1] = sum_to_shape(times_derivative(g, DerivativeOfB<F>(), F{}.db(0, 1)), b_shape);
    return grads;
  }

 private:
  template <class D>
  Tensor times_derivative(const Tensor& g, D derivative, float constant) {
    if constexpr (!F::needs_operands) {
      return constant == 1.0F ? g : scale(g, constant);
    } else {
      Tensor d = Tensor::empty_like(g);
      run_broadcast(derivative, a.get(), b.get(), d);
      map_tensors(Product(), d, d, g);
      return d;
    }
  }
};

template <class F>
Tensor binary(const Tensor& a, const Tensor& b) {
  check::floats(F::name, "a", a);
  check::tensor(F::name, "b", b, a.dtype());
  check::same_device(F::name, {a, b});
  Tensor y = Tensor::empty(broadcast_shape(F::name, a, b), a.dtype(), a.device());
  run_broadcast(F{}, a, b, y);
  return Tape::record<BinaryNode<F>>(F::name, {a, b}, y, [&](BinaryNode<F>& node) {
    node.a_shape = a.shape();
    node.b_shape = b.shape();
    if constexpr (F::needs_operands) {
      node.a.save(a);
      node.b.save(b);
    }
  });
}

struct ScaleNode final : Node {
  float factor = 1;
  std::string_view name() const override { return "scale"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    return {scale(grad_outputs[0], factor)};
  }
};

struct Times {
  const float* source;
  float value = 0;
  QTRAIN_HOST_DEVICE void prepare() { value = *source; }
  QTRAIN_HOST_DEVICE float operator()(float x) const { return x * value; }
};

// Each output element walks the dimensions that broadcasting repeated.
template <class T>
struct SumRepeated {
  StoredOrder kept, repeated;
  StoredOrder::Strides in_kept, in_repeated, in_out;
  std::int64_t terms;
  const T* x;
  T* y;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t start = kept.offset(i, in_kept);
    double total = 0;
    for (std::int64_t k = 0; k < terms; ++k)
      total += static_cast<double>(load(x[start + repeated.offset(k, in_repeated)]));
    store(y[kept.offset(i, in_out)], static_cast<float>(total));
  }
};

struct ShiftNode final : Node {
  std::string_view name() const override { return "shift"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override { return {grad_outputs[0]}; }
};

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  return binary<Add>(a, b);
}
Tensor subtract(const Tensor& a, const Tensor& b) {
  return binary<Subtract>(a, b);
}
Tensor multiply(const Tensor& a, const Tensor& b) {
  return binary<Multiply>(a, b);
}
Tensor divide(const Tensor& a, const Tensor& b) {
  return binary<Divide>(a, b);
}

Tensor scale(const Tensor& x, float factor) {
  check::floats("scale", "x", x);
  Tensor y = Tensor::empty_like(x);
  map_tensors(Scaled{factor}, y, x);
  return Tape::record<ScaleNode>("scale", {x}, y, [&](ScaleNode& node) { node.factor = factor; });
}

Tensor shift(const Tensor& x, float offset) {
  check::floats("shift", "x", x);
  Tensor y = Tensor::empty_like(x);
  map_tensors(Shifted{offset}, y, x);
  return Tape::record<ShiftNode>("shift", {x}, y, [](ShiftNode&) {});
}

void add_in_place(const Tensor& a, const Tensor& b) {
  check::floats("add_in_place", "a", a);
  check::tensor("add_in_place", "b", b, a.dtype());
  check::shape("add_in_place", "b", b, a.shape());
  check::same_device("add_in_place", {a, b});
  map_tensors(Add{}, a, a, b);
  a.bump_version();
}

void multiply_in_place(const Tensor& a, const Tensor& factor) {
  check::floats("multiply_in_place", "a", a);
  check::tensor("multiply_in_place", "factor", factor);
  check::sizes(factor.numel() == 1, "multiply_in_place", "the factor is not one value", factor.str(),
               "one element");
  check::same_device("multiply_in_place", {a, factor});
  map_tensors(Times{factor.data<float>()}, a, a);
  a.bump_version();
}

Tensor sum_to_shape(const Tensor& t, const Shape& shape) {
  check::floats("sum_to_shape", "t", t);
  if (t.shape() == shape) return t;
  bool broadcasts = shape.rank() <= t.rank();
  for (std::size_t i = 1; broadcasts && i <= shape.rank(); ++i)  // from the last dimension
    broadcasts = shape[shape.rank() - i] == 1 || shape[shape.rank() - i] == t.dim(t.rank() - i);
  check::sizes(broadcasts, "sum_to_shape", "no broadcasting leads there", t.str(),
               "a shape that broadcasts from " + shape.str());
  const NoGradGuard no_grad;
  if (shape.numel() == 1) return cast(total_of(t, shape), t.dtype());
  Tensor out = Tensor::empty(shape, t.dtype(), t.device());
  // The repeated dimensions are those with stride 0.
  const StoredOrder kept(shape, t.rank());
  const StoredOrder repeated = kept.complement(t.shape());
  with_float_type(t.dtype(), [&](auto type) {
    using T = decltype(type);
    const SumRepeated<T> sum{
        .kept = kept,
        .repeated = repeated,
        .in_kept = kept.strides_of(t.shape()),
        .in_repeated = repeated.strides_of(t.shape()),
        .in_out = kept.strides_of(shape),  // in the order of its own rank, which may differ from t's
        .terms = repeated.numel(),
        .x = t.data<T>(),
        .y = out.data<T>()};
    for_each(backend(t.device()).stream(), shape.numel(), sum, 1);
  });
  return out;
}

}  // namespace qtrain
