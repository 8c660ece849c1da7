// The eager tape: ops record a Node when an input needs gradients; backward() walks the nodes in reverse
// order.
#pragma once

#include <functional>
#include <initializer_list>

#include "engine/autograd/node.h"

namespace qtrain {

class Tape {
 public:
  // Records `output` as computed by a NodeType from `inputs`; `save` fills in the node. Does nothing but
  // return the output when no input needs a gradient or recording is off. Every op ends with this call.
  template <class NodeType, class Save>
  static Tensor record(std::string_view op, std::initializer_list<Tensor> inputs, const Tensor& output,
                       Save&& save) {
    check_finite(op, output);
    if (!needs_recording(inputs)) return output;
    auto node = std::make_shared<NodeType>();
    save(*node);
    connect(node, std::span<const Tensor>(inputs.begin(), inputs.size()),
            std::span<const Tensor>(&output, 1));
    return output;
  }
  // The same for ops with a variable number of inputs, several outputs, or a node made beforehand.
  static void record(const std::shared_ptr<Node>& node, std::span<const Tensor> inputs,
                     std::span<const Tensor> outputs);
  static bool needs_recording(std::span<const Tensor> inputs);

  // Adds d(loss)/d(leaf) to every leaf's gradient. A gradient has the element type of its tensor; leaves that
  // collect gradients are f32. `gradient` is d(something)/d(loss): by default 1.
  // Frees what the nodes saved.
  static void backward(const Tensor& loss, const Tensor& gradient = {});

  static bool recording();  // on unless a NoGradGuard is alive on this thread

  // Nodes reachable from a tensor, newest first: for inspection of what is saved and how large it is.
  static std::vector<std::shared_ptr<Node>> nodes(const Tensor& output);

 private:
  friend class NoGradGuard;
  static void attach(const Tensor& output, std::shared_ptr<Node> producer, std::size_t index);
  static bool needs_recording(std::initializer_list<Tensor> inputs) {
    return needs_recording(std::span<const Tensor>(inputs.begin(), inputs.size()));
  }
  static void connect(const std::shared_ptr<Node>& node, std::span<const Tensor> inputs,
                      std::span<const Tensor> outputs);
  static void check_finite(std::string_view op, const Tensor& output);
};

// No recording on this thread while it lives: evaluation, and updates of parameters.
class NoGradGuard {
 public:
  NoGradGuard();
  ~NoGradGuard();
  NoGradGuard(const NoGradGuard&) = delete;
  NoGradGuard& operator=(const NoGradGuard&) = delete;

 private:
  bool before_;
};

// While it lives on this thread, every op's output and every gradient is searched for NaN and infinity, and
// the first op that makes one is named in a NumericError. Reads every tensor on the host: for post-mortems.
class FiniteCheckGuard {
 public:
  FiniteCheckGuard();
  ~FiniteCheckGuard();
  FiniteCheckGuard(const FiniteCheckGuard&) = delete;
  FiniteCheckGuard& operator=(const FiniteCheckGuard&) = delete;

 private:
  bool before_;
};

// Names the part of the model that runs, so that messages of FiniteCheckGuard can say where
// ("layer1.0.conv1").
class ScopeName {
 public:
  explicit ScopeName(std::string_view name);
  ~ScopeName();
  ScopeName(const ScopeName&) = delete;
  ScopeName& operator=(const ScopeName&) = delete;
  static std::string current();

 private:
  std::size_t length_before_;
};

}  // namespace qtrain
