// Turns the scalar math of a quantizer into an op: one pass over memory forward, one backward, with the
// gradients of K parameters summed up in the same pass. Nothing is saved but the input; what comes after gets
// its copy of the output made again when backward needs it.
//
// The math is a copyable struct F, compiled for every device:
//   std::array<const float*, K> parameters;     learned; set by fake_quantize(); device pointers
//   std::array<const float*, S> constants;      statistics and the like, without gradient; likewise
//   void prepare(std::int64_t group);           reads those of one group, once before a loop; or prepare(),
//                                               where one group has all
//   float forward(float x) const;               y
//   Mapped<K> backward(float x, float g) const; {dL/dx, {dL/dparameter_k of this element}}, g = dL/dy
// With K = 0 there are no `parameters`, and backward returns dL/dx alone. Math whose gradient is g for every
// x (the plain straight-through estimator) says `static constexpr bool straight_through = true` instead of
// having a backward, and costs no pass where nothing is padded.
//
// Math whose forward pass is a kernel of its own has, instead of forward(),
//   void run(stream, n, grouping, float* y, const float* x, float* statistics) const;
// which also fills in what else the kernel measures, where fake_quantize() was told a place for it.
//
// x and y are both f32 or, but for math with a kernel of its own, both bf16; the math is float32, and so are
// parameters, constants and their gradients.
//
// fake_quantize_padded() is the same for images that are padded with zeros first: it reads x without them and
// writes y with them, still in one pass. Only x itself is kept, which others keep anyway. It needs forward().
//
// Behind a batch norm whose output is pending, the passes of both are batch norm's own
// (engine/ops/batch_norm_fusion.h), where there is one group, and forward also needs forward().
#pragma once

#include <utility>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/bordered.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/math.h"
#include "engine/kernels/scalar_functors.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/batch_norm_fusion.h"
#include "engine/ops/check.h"

namespace qtrain::quant {

namespace detail {

template <class F>
constexpr bool straight_through = requires {
  requires F::straight_through;
};

template <class F>
struct ForwardOf {
  F f;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { qtrain::detail::prepare_group(f, group); }
  QTRAIN_HOST_DEVICE float operator()(float x) const { return f.forward(x); }
};

template <class F>
struct BackwardOf {
  F f;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { qtrain::detail::prepare_group(f, group); }
  QTRAIN_HOST_DEVICE auto operator()([[maybe_unused]] float x, float g) const {
    if constexpr (straight_through<F>)
      return g;
    else
      return f.backward(x, g);
  }
};

template <class F>
constexpr std::size_t constant_count() {
  if constexpr (requires(F f) { f.constants; })
    return std::tuple_size_v<decltype(F::constants)>;
  else
    return 0;
}

template <class F>
constexpr bool has_own_kernel = requires {
  &F::run;
};

// One learned number each from the K sums.
inline Tensor parameter_gradient(const Tensor& sums, std::int64_t k, const Tensor& into) {
  const std::int64_t groups = into.numel();
  map(backend(sums.device()).stream(), groups, Copied(), into.data<float>(), sums.data<float>() + k * groups);
  return into;
}

// Below, Rows tells where x lies in y and in g = dL/dy: NoBorder, or BorderedRows, with one group.

template <class Rows>
Tensor place_for_grad_x(const Tensor& x, const Tensor& g) {
  return has_border<Rows> ? Tensor::empty_like(x) : reuse_or_allocate(g);
}

// grad_x = dL/dx; returns the sums of the K terms, [K * groups].
template <int K, class Math, class Rows>
Tensor quantizer_gradient(const Math& math, const Grouping& grouping, const Rows& rows, const Tensor& x,
                          const Tensor& g, const Tensor& grad_x) {
  const Stream stream = backend(g.device()).stream();
  Tensor sums = K > 0 ? Tensor::empty({K * grouping.groups()}, DType::f32, g.device()) : Tensor();
  with_float_type(g.dtype(), [&](auto type) {
    using T = decltype(type);
    map_reduce_inside<K>(stream, rows, x.numel(), grouping, math, K > 0 ? sums.data<float>() : nullptr,
                         grad_x.data<T>(), g.data<T>(), x.data<T>());
  });
  return sums;
}

// The backward pass of a quantizer with one group, put off so that batch norm's backward can do it.
template <int K, class F, class Rows>
class FakeQuantizeGradient final : public DeferredBatchNormGradient {
 public:
  static constexpr std::size_t count = static_cast<std::size_t>(K);

  explicit FakeQuantizeGradient(const Rows& rows) : rows_(rows) {}

  // dL/dx and dL/dparameter_k, pending. `with` points into `held`.
  static std::vector<Tensor> put_off(const F& with, std::vector<Tensor>&& held, const Rows& rows,
                                     const Tensor& x, const Tensor& g,
                                     const std::array<Tensor, count>& parameters) {
    const auto work = std::make_shared<FakeQuantizeGradient>(rows);
    work->math_ = {with};
    work->held_ = std::move(held);
    work->x_ = x;
    work->g_ = g;
    std::vector<Tensor> grads{Tensor::deferred(x.shape(), x.dtype(), x.device(), work)};
    work->grad_x_ = Owed(grads[0]);
    std::size_t k = 0;
    for (const Tensor& p : parameters) {
      grads.push_back(Tensor::deferred(p.shape(), p.dtype(), p.device(), std::make_shared<Part>(work)));
      work->grad_parameters_[k++] = Owed(grads.back());
    }
    return grads;
  }

  void compute() override {
    Tensor grad_x = grad_x_.receive();
    if (!grad_x.defined()) grad_x = Tensor::empty_like(x_);  // only the parameters' are wanted
    const Tensor sums = quantizer_gradient<K>(math_, {}, rows_, x_, g_, grad_x);
    if constexpr (K > 0) give_parameters(sums);
    if (addend().defined()) add_in_place(grad_x, addend());
  }

  Tensor place_for_grad_x() const override { return detail::place_for_grad_x<Rows>(x_, g_); }

  void batch_norm_backward(BatchNormBackward a) override {
    const Stream stream = backend(g_.device()).stream();
    a.grad = std::exchange(g_, {});
    a.addend = addend();
    std::array<Tensor, count> grads;
    BatchNormSums<K> sums{};
    std::size_t k = 0;
    for (const Owed& owed : grad_parameters_) {
      grads[k] = owed.receive();
      if (grads[k].defined()) sums[k] = grads[k].template data<float>();
      ++k;
    }
    qtrain::batch_norm_backward<K>(stream, a, math_, sums, rows_);
  }

 private:
  // A parameter's share of the work.
  struct Part final : Deferred {
    explicit Part(std::shared_ptr<Deferred> of) : whole(std::move(of)) {}
    void compute() override { whole->compute(); }
    std::shared_ptr<Deferred> whole;
  };

  void give_parameters(const Tensor& sums) {
    std::int64_t k = 0;
    for (const auto& owed : grad_parameters_) {
      if (const Tensor grad = owed.receive(); grad.defined()) parameter_gradient(sums, k, grad);
      ++k;
    }
  }

  Rows rows_;
  BackwardOf<F> math_;
  std::vector<Tensor> held_;
  Tensor x_, g_;
  Owed grad_x_;
  std::array<Owed, count> grad_parameters_;
};

template <int K, class F, class Rows>
struct FakeQuantizeNode final : Node {
  static constexpr std::size_t count = static_cast<std::size_t>(K);
  Rows rows;
  Shape y_shape;
  F f{};
  std::string_view op;
  Grouping grouping;
  SavedTensor x{"x"};
  std::array<SavedTensor, count> parameters = slots("parameter", std::make_index_sequence<count>());
  std::array<SavedTensor, constant_count<F>()> constants =
      slots("constant", std::make_index_sequence<constant_count<F>()>());

  FakeQuantizeNode(const Rows& place, const Shape& shape_of_y) : rows(place), y_shape(shape_of_y) {}

  std::string_view name() const override { return op; }
  std::vector<SavedTensor*> saved() override {
    std::vector<SavedTensor*> all{&x};
    for (SavedTensor& p : parameters) all.push_back(&p);
    for (SavedTensor& c : constants) all.push_back(&c);
    return all;
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(std::size_t /*output*/) override { return run_forward(bound(), x.get()); }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    if constexpr (straight_through<F> && !has_border<Rows>) {
      return {g};
    } else {
      const Tensor input = x.get();
      if (grouping.groups() == 1 && may_defer_gradient(0)) return put_off(input, g);
      std::vector<Tensor> grads(1 + count);
      grads[0] = place_for_grad_x<Rows>(input, g);
      const Tensor sums = quantizer_gradient<K>(BackwardOf<F>{bound()}, grouping, rows, input, g, grads[0]);
      if constexpr (K > 0) give_parameters(grads, sums);
      return grads;
    }
  }

  // `statistics`: for math with a kernel of its own; or nullptr.
  Tensor run_forward(const F& with, const Tensor& input, [[maybe_unused]] float* statistics = nullptr) const {
    Tensor y = Tensor::empty(y_shape, input.dtype(), input.device());
    const Stream stream = backend(input.device()).stream();
    if constexpr (!has_own_kernel<F>)
      if (const auto norm = fusable_batch_norm(input); norm != nullptr && grouping.groups() == 1) {
        // Whoever comes second needs x itself; who comes in backward makes again what was made before.
        const bool again = norm->is_fused();
        if (!again || !Tape::recording()) {
          const Tensor x_too = again ? Tensor() : norm->output_in_same_pass();
          batch_norm_map(stream, norm->of(), ForwardOf<F>{with}, y, x_too, rows);
          return y;
        }
      }
    if constexpr (has_own_kernel<F>)
      with.run(stream, input.numel(), grouping, y.data<float>(), input.data<float>(), statistics);
    else
      with_float_type(input.dtype(), [&](auto type) {
        using T = decltype(type);
        map_around(stream, rows, input.numel(), grouping, ForwardOf<F>{with}, y.data<T>(), input.data<T>());
      });
    return y;
  }

 private:
  F bound() const {
    F with = f;
    if constexpr (K > 0)
      for (std::size_t k = 0; k < count; ++k) with.parameters[k] = parameters[k].get().template data<float>();
    if constexpr (constant_count<F>() > 0)
      for (std::size_t c = 0; c < constants.size(); ++c)
        with.constants[c] = constants[c].get().template data<float>();
    return with;
  }

  // sums: [K * groups].
  void give_parameters(std::vector<Tensor>& grads, const Tensor& sums) const {
    for (std::size_t k = 0; k < count; ++k)
      grads[1 + k] = K == 1 && sums.shape() == parameters[k].get().shape()
                         ? sums
                         : parameter_gradient(sums, static_cast<std::int64_t>(k),
                                              Tensor::empty_like(parameters[k].get()));
  }

  std::vector<Tensor> put_off(const Tensor& input, const Tensor& g) const {
    std::vector<Tensor> held;
    std::array<Tensor, count> of_parameters;
    std::size_t k = 0;
    for (const SavedTensor& p : parameters) held.push_back(of_parameters[k++] = p.get());
    for (const SavedTensor& c : constants) held.push_back(c.get());
    return FakeQuantizeGradient<K, F, Rows>::put_off(bound(), std::move(held), rows, input, g, of_parameters);
  }

  template <std::size_t... I>
  static std::array<SavedTensor, sizeof...(I)> slots([[maybe_unused]] std::string_view name,
                                                     std::index_sequence<I...>) {
    return {(static_cast<void>(I), SavedTensor(name))...};
  }
};

// Runs a node that knows its grouping, and puts it on the tape.
template <int K, class F, class Node>
Tensor run_fake_quantize(const std::shared_ptr<Node>& node, std::string_view op, const Tensor& x, F f,
                         const std::array<Tensor, static_cast<std::size_t>(K)>& parameters,
                         const std::array<Tensor, constant_count<F>()>& constants,
                         float* statistics = nullptr) {
  for (const Tensor& p : parameters) {
    check::tensor(op, "parameter", p);
    check::sizes(p.numel() == node->grouping.groups(), op, "wrong number of parameters", p.str(),
                 std::to_string(node->grouping.groups()) + ", one a group");
    check::same_device(op, {x, p});
  }
  if constexpr (K > 0)
    for (std::size_t k = 0; k < parameters.size(); ++k)
      f.parameters[k] = parameters[k].template data<float>();
  if constexpr (constant_count<F>() > 0)
    for (std::size_t c = 0; c < constants.size(); ++c) f.constants[c] = constants[c].template data<float>();
  Tensor y = node->run_forward(f, x, statistics);
  std::array<Tensor, 1 + static_cast<std::size_t>(K)> inputs;
  inputs[0] = x;
  std::copy(parameters.begin(), parameters.end(), inputs.begin() + 1);
  node->f = f;
  node->op = op;
  if (Tape::needs_recording(inputs)) {
    node->x.save(x);
    for (std::size_t k = 0; k < parameters.size(); ++k) node->parameters[k].save(parameters[k]);
    for (std::size_t c = 0; c < constants.size(); ++c) node->constants[c].save(constants[c]);
  }
  Tape::record(node, inputs, std::span<const Tensor>(&y, 1));
  return y;
}

}  // namespace detail

// y = f.forward(x) elementwise. Parameters are f32 on x's device with one element a group; constants have
// whatever the math expects. ShapeError where the elements can't be divided among the groups. `statistics`,
// for math with a kernel of its own: where they go.
template <int K, class F>
Tensor fake_quantize(std::string_view op, const Tensor& x, F f,
                     const std::array<Tensor, static_cast<std::size_t>(K)>& parameters,
                     const Grouping& grouping = {},
                     const std::array<Tensor, detail::constant_count<F>()>& constants = {},
                     float* statistics = nullptr) {
  if constexpr (detail::has_own_kernel<F>)
    check::tensor(op, "x", x);
  else
    check::floats(op, "x", x);
  const std::int64_t turn = grouping.outer * grouping.inner * (grouping.inner > 1 ? grouping.run : 1);
  check::sizes(x.numel() % turn == 0, op, "the elements can't be divided among the groups", x.str(),
               std::to_string(grouping.groups()) + " groups of equal size");
  const auto node = std::make_shared<detail::FakeQuantizeNode<K, F, NoBorder>>(NoBorder(), x.shape());
  node->grouping = grouping;
  return detail::run_fake_quantize<K>(node, op, x, std::move(f), parameters, constants, statistics);
}

// fake_quantize() of pad2d(x, border.begin, border.end), with one group.
template <int K, class F>
Tensor fake_quantize_padded(std::string_view op, const Tensor& x, const Border& border, F f,
                            const std::array<Tensor, static_cast<std::size_t>(K)>& parameters,
                            const std::array<Tensor, detail::constant_count<F>()>& constants = {}) {
  check::floats(op, "x", x);
  check::rank(op, "x", x, {4});
  check::padding(op, border);
  const auto node = std::make_shared<detail::FakeQuantizeNode<K, F, BorderedRows>>(
      BorderedRows(x.shape(), border), border.around(x.shape()));
  return detail::run_fake_quantize<K>(node, op, x, std::move(f), parameters, constants);
}

}  // namespace qtrain::quant
