#include "engine/autograd/tape.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "engine/autograd/deferred_gradient.h"
#include "engine/core/error.h"
#include "engine/kernels/element.h"
#include "engine/kernels/float_type.h"
#include "engine/ops/cast.h"

namespace qtrain {
namespace {

thread_local bool is_recording = true;
thread_local bool is_checking_finite = false;
thread_local std::string scope_name;
std::atomic<std::uint64_t> next_order{0};

[[noreturn]] void throw_non_finite(std::string_view op, std::string_view what, float value) {
  throw NumericError({.where = std::string(op),
                      .what = fmt::format("first non-finite value appears in {}", what),
                      .got = fmt::format("{}", value),
                      .expected = "",
                      .hint = scope_name.empty() ? "" : "in " + scope_name});
}

[[noreturn]] void throw_used(const std::string& what) {
  throw AutogradError({.where = "backward",
                       .what = what + " is gone: this part of the tape was used already",
                       .got = "",
                       .expected = "one backward() per forward",
                       .hint = ""});
}

// A gradient has the element type of what it is the gradient of.
void require_type(std::string_view where, std::string_view what, const Tensor& gradient, DType expected) {
  if (gradient.dtype() != expected)
    throw DTypeError({.where = std::string(where),
                      .what = std::string(what),
                      .got = gradient.str(),
                      .expected = std::string(name_of(expected)),
                      .hint = ""});
}

void require_finite(std::string_view op, std::string_view what, const Tensor& t) {
  if (!t.defined() || !is_float_type(t.dtype())) return;
  with_float_type(t.dtype(), [&](auto type) {
    for (const auto element : t.values<decltype(type)>())
      if (const float v = load(element); !std::isfinite(v)) throw_non_finite(op, what, v);
  });
}

}  // namespace

void SavedTensor::save(const Tensor& tensor) {
  if (!tensor.defined()) return;
  released_ = false;
  if (tensor.producer() != nullptr && tensor.producer()->can_recompute()) {
    recipe_ = tensor.producer();
    recipe_output_ = tensor.producer_output();
    return;
  }
  tensor_ = tensor.detach();  // off the tape: a node that saves its own output must not own itself
  version_ = tensor_.storage_version();
}

Tensor SavedTensor::get() const {
  if (released_) throw_used(fmt::format("saved tensor '{}'", name_));
  if (recipe_ != nullptr) return recipe_->recompute(recipe_output_);
  if (tensor_.defined() && tensor_.storage_version() != version_)
    throw AutogradError(
        {.where = "backward",
         .what = fmt::format("saved tensor '{}' was changed in place after the forward", name_),
         .got = "",
         .expected = "",
         .hint = "update parameters after backward()"});
  return tensor_;
}

void SavedTensor::release() {
  released_ = released_ || defined();
  tensor_ = {};
  recipe_.reset();
}

std::size_t SavedTensor::bytes() const {
  return tensor_.defined() && tensor_.pending() == nullptr ? tensor_.bytes() : 0;
}

Node::~Node() {
  std::vector<std::shared_ptr<Node>> orphans;
  const auto take_producers = [&orphans](Node& node) {
    for (Edge& edge : node.inputs_)
      if (edge.producer != nullptr) orphans.push_back(std::move(edge.producer));
  };
  take_producers(*this);
  while (!orphans.empty()) {
    const std::shared_ptr<Node> orphan = std::move(orphans.back());
    orphans.pop_back();
    if (orphan.use_count() == 1) take_producers(*orphan);
  }
}

Tensor Node::recompute(std::size_t /*output*/) {
  throw AutogradError({.where = std::string(name()),
                       .what = "cannot recompute its output",
                       .got = "",
                       .expected = "",
                       .hint = ""});
}

bool Tape::recording() {
  return is_recording;
}

bool Tape::needs_recording(std::span<const Tensor> inputs) {
  return is_recording &&
         std::ranges::any_of(inputs, [](const Tensor& t) { return t.defined() && t.requires_grad(); });
}

void Tape::check_finite(std::string_view op, const Tensor& output) {
  if (is_checking_finite) require_finite(op, "its output", output);
}

void Tape::record(const std::shared_ptr<Node>& node, std::span<const Tensor> inputs,
                  std::span<const Tensor> outputs) {
  for (const Tensor& output : outputs) check_finite(node->name(), output);
  if (needs_recording(inputs)) connect(node, inputs, outputs);
}

void Tape::connect(const std::shared_ptr<Node>& node, std::span<const Tensor> inputs,
                   std::span<const Tensor> outputs) {
  for (const Tensor& input : inputs) {
    Node::Edge edge;
    if (input.defined() && input.requires_grad()) {
      edge.needs_grad = true;
      edge.dtype = input.dtype();
      edge.producer = input.producer();
      edge.producer_output = input.producer_output();
      if (edge.producer == nullptr) edge.leaf = input;
    }
    node->inputs_.push_back(std::move(edge));
  }
  node->output_count_ = outputs.size();
  node->order_ = next_order++;
  for (std::size_t i = 0; i < outputs.size(); ++i) attach(outputs[i], node, i);
}

void Tape::backward(const Tensor& loss, const Tensor& gradient) {
  if (loss.producer() == nullptr)
    throw AutogradError({.where = "backward",
                         .what = "the tensor was not computed from anything that needs gradients",
                         .got = loss.str(),
                         .expected = "",
                         .hint = "set_requires_grad(true) on the parameters first"});
  if (!gradient.defined() && loss.numel() != 1)
    throw AutogradError({.where = "backward",
                         .what = "only a single value has an implied gradient",
                         .got = loss.str(),
                         .expected = "one element, or a gradient of the same shape",
                         .hint = ""});
  if (gradient.defined()) {
    require_type("backward", "wrong element type of the gradient", gradient, loss.dtype());
    if (gradient.shape() != loss.shape())
      throw ShapeError({.where = "backward",
                        .what = "wrong shape of the gradient",
                        .got = gradient.str(),
                        .expected = loss.str(),
                        .hint = ""});
    if (gradient.device() != loss.device())
      throw DeviceError({.where = "backward",
                         .what = "the gradient is elsewhere",
                         .got = gradient.device().str(),
                         .expected = loss.device().str(),
                         .hint = ""});
  }
  const NoGradGuard no_grad;

  // Newest first: a node runs after everything that used its outputs.
  struct Older {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
      return a->order_ < b->order_;
    }
  };
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Older> ready;
  std::unordered_map<Node*, std::vector<Tensor>> pending;  // gradients of outputs, so far

  const auto deliver = [&](const std::shared_ptr<Node>& node, std::size_t output, Tensor grad) {
    const auto [place, is_new] = pending.try_emplace(node.get(), node->output_count_);
    if (is_new) ready.push(node);
    accumulate(place->second[output], std::move(grad));
  };
  const auto give_leaf = [](const Tensor& leaf, Tensor grad) {
    Tensor total = leaf.grad();
    leaf.set_grad({});
    accumulate(total, std::move(grad));
    leaf.set_grad(total.is_sole_owner() ? std::move(total) : total.clone());
  };
  // Gradients of a quantizer's parameters are pending until an older node computes them in its own pass.
  // Leaves, and nodes between a leaf and these, get them at the end.
  std::vector<std::pair<Tensor, Tensor>> late_leaves;
  std::vector<std::pair<std::shared_ptr<Node>, std::vector<Tensor>>> late_nodes;
  const auto run = [&](const std::shared_ptr<Node>& node, std::vector<Tensor> grad_outputs) {
    std::vector<Tensor> grads = node->backward(grad_outputs);
    grad_outputs.clear();
    for (SavedTensor* saved : node->saved()) saved->release();
    for (std::size_t i = 0; i < node->inputs_.size(); ++i) {
      Node::Edge& edge = node->inputs_[i];
      if (!edge.needs_grad || i >= grads.size() || !grads[i].defined()) continue;
      require_type(node->name(), "a gradient has another element type than its input", grads[i], edge.dtype);
      if (is_checking_finite)
        require_finite(node->name(), fmt::format("the gradient of its input {}", i), grads[i]);
      Tensor grad = std::move(grads[i]);
      if (edge.producer != nullptr)
        deliver(edge.producer, edge.producer_output, std::move(grad));
      else if (grad.pending() != nullptr)
        late_leaves.emplace_back(edge.leaf, std::move(grad));
      else
        give_leaf(edge.leaf, std::move(grad));
    }
    node->inputs_.clear();  // the chain of producers is freed while it is walked
  };
  const auto can_wait = [](const Node& node, const std::vector<Tensor>& grad_outputs) {
    return !node.takes_deferred_gradient() && std::ranges::any_of(grad_outputs, [](const Tensor& g) {
      return g.defined() && g.pending() != nullptr;
    }) && std::ranges::all_of(node.inputs_, [](const Node::Edge& edge) { return edge.producer == nullptr; });
  };

  deliver(
      loss.producer(), loss.producer_output(),
      gradient.defined() ? gradient : cast(Tensor::full(loss.shape(), 1.0F, loss.device()), loss.dtype()));
  while (!ready.empty()) {
    const std::shared_ptr<Node> node = ready.top();
    ready.pop();
    auto waiting = pending.extract(node.get());
    if (node->used_) throw_used(fmt::format("what '{}' saved", node->name()));
    node->used_ = true;
    if (can_wait(*node, waiting.mapped()))
      late_nodes.emplace_back(node, std::move(waiting.mapped()));
    else
      run(node, std::move(waiting.mapped()));
  }
  for (auto& [node, grad_outputs] : late_nodes) run(node, std::move(grad_outputs));
  for (auto& [leaf, grad] : late_leaves) {
    grad.raw();  // whatever is still pending has nothing left to wait for
    give_leaf(leaf, std::move(grad));
  }
}

std::vector<std::shared_ptr<Node>> Tape::nodes(const Tensor& output) {
  std::vector<std::shared_ptr<Node>> found;
  std::unordered_set<Node*> seen;
  const auto visit = [&](const std::shared_ptr<Node>& node) {
    if (node != nullptr && seen.insert(node.get()).second) found.push_back(node);
  };
  visit(output.producer());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::shared_ptr<Node> node = found[i];
    for (const Node::Edge& edge : node->inputs_) visit(edge.producer);
  }
  std::ranges::sort(found, [](const auto& a, const auto& b) { return a->order_ > b->order_; });
  return found;
}

NoGradGuard::NoGradGuard() : before_(is_recording) {
  is_recording = false;
}
NoGradGuard::~NoGradGuard() {
  is_recording = before_;
}

FiniteCheckGuard::FiniteCheckGuard() : before_(is_checking_finite) {
  is_checking_finite = true;
}
FiniteCheckGuard::~FiniteCheckGuard() {
  is_checking_finite = before_;
}

ScopeName::ScopeName(std::string_view name) : length_before_(scope_name.size()) {
  if (!scope_name.empty()) scope_name += '.';
  scope_name += name;
}
ScopeName::~ScopeName() {
  scope_name.resize(length_before_);
}
std::string ScopeName::current() {
  return scope_name;
}

}  // namespace qtrain
