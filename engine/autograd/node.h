// One recorded operation of the tape: what it saved, and its backward.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/tensor.h"

namespace qtrain {

// A tensor kept for backward, under a name. If the tensor's producer can recompute it cheaply (a
// fake-quantizer can: one pass over its input), only the producer is kept, and the elements are made again
// when asked for.
class SavedTensor {
 public:
  explicit SavedTensor(std::string_view name) : name_(name) {}

  void save(const Tensor& tensor);
  Tensor get() const;  // throws AutogradError when it was released or overwritten in place
  bool defined() const { return tensor_.defined() || recipe_ != nullptr; }
  void release();

  std::string_view name() const { return name_; }
  std::size_t bytes() const;  // held alive for backward; 0 where it is recomputed or not computed yet
  bool recomputed() const { return recipe_ != nullptr; }

 private:
  std::string_view name_;
  Tensor tensor_;
  std::shared_ptr<Node> recipe_;
  std::size_t recipe_output_ = 0;
  std::uint64_t version_ = 0;
  bool released_ = false;
};

class Node {
 public:
  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  virtual ~Node();  // frees a chain of producers one by one, however long it is

  virtual std::string_view name() const = 0;
  virtual std::vector<SavedTensor*> saved() = 0;  // all of them, for release and inspection

  // Gradients with respect to each input, given those with respect to each output (undefined where the output
  // was not used). An input for which needs_grad() is false may get an undefined tensor.
  virtual std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) = 0;

  // For nodes whose outputs are cheap to make again from what they saved.
  virtual bool can_recompute() const { return false; }
  virtual Tensor recompute(std::size_t output);

  // True where backward() has a use for pending gradients of its outputs (deferred_gradient.h).
  virtual bool takes_deferred_gradient() const { return false; }

  bool needs_grad(std::size_t input) const { return inputs_[input].needs_grad; }
  // Whether the gradient of an input goes to such a node.
  bool may_defer_gradient(std::size_t input) const {
    const std::shared_ptr<Node>& producer = inputs_[input].producer;
    return producer != nullptr && producer->takes_deferred_gradient();
  }

 private:
  friend class Tape;
  struct Edge {
    std::shared_ptr<Node> producer;  // of the input; nullptr for leaves
    std::size_t producer_output = 0;
    Tensor leaf;  // the input itself where it is a leaf that collects gradients
    DType dtype = DType::f32;
    bool needs_grad = false;
  };
  std::vector<Edge> inputs_;
  std::size_t output_count_ = 1;
  std::uint64_t order_ = 0;  // position on the tape
  bool used_ = false;        // backward() went through it
};

// Where an elementwise backward writes the gradient of its input: over the gradient of its output where
// nothing else can see that, which spares the memory and the traffic of a second one.
inline Tensor reuse_or_allocate(const Tensor& grad_output) {
  return grad_output.is_sole_owner() ? grad_output : Tensor::empty_like(grad_output);
}

}  // namespace qtrain
