// Module: a node of the tree that a network is. It owns named parameters (learned), buffers (running
// statistics, counters) and children, all in the order of registration; full names join with dots, as in
// PyTorch: `layer1.0.conv1.weight`.
//
// A module's own file reads like this:
//
//   class Block final : public Module {
//    public:
//     std::string kind() const override { return "Block"; }
//     Tensor forward(const Tensor& x) override { return bn1(conv1(x), true); }
//    private:
//     Slot<Module> conv1 = add("conv1", std::make_shared<Conv2d>(...));
//     Slot<Normalization> bn1 = add<Normalization>("bn1", std::make_shared<BatchNorm2d>(64));
//   };
//
// A Slot runs whatever child stands there now, so a child can be replaced from outside (by a quantized layer,
// for example) without the parent knowing.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "engine/autograd/tape.h"
#include "engine/core/named_tensor.h"

namespace qtrain {

class Module;

// The place of a child in its parent: a name, the module that stands there, and the type that the parent
// needs.
class ChildPlace {
 public:
  ChildPlace(std::string name, std::string_view required) : name_(std::move(name)), required_(required) {}
  ChildPlace(const ChildPlace&) = delete;
  ChildPlace& operator=(const ChildPlace&) = delete;
  virtual ~ChildPlace() = default;

  const std::string& name() const { return name_; }
  std::string_view required() const { return required_; }  // the interface's name, for messages
  const std::shared_ptr<Module>& module() const { return module_; }
  bool put(std::shared_ptr<Module> module);  // false if the module is not of the required type

 protected:
  virtual bool bind(Module* module) = 0;

 private:
  std::string name_;
  std::string_view required_;
  std::shared_ptr<Module> module_;
};

template <class T>
class TypedChildPlace final : public ChildPlace {
 public:
  explicit TypedChildPlace(std::string name) : ChildPlace(std::move(name), T::interface_name) {}
  T* typed() const { return typed_; }

 protected:
  bool bind(Module* module) override {
    T* const candidate = dynamic_cast<T*>(module);
    if (candidate == nullptr) return false;
    typed_ = candidate;
    return true;
  }

 private:
  T* typed_ = nullptr;
};

// A parent's handle to the child that stands in one place now. Calling it runs the child's forward under the
// child's name, so that errors can say where they happened. Default-made it is empty: an optional child.
template <class T>
class Slot {
 public:
  Slot() = default;
  explicit Slot(std::shared_ptr<const TypedChildPlace<T>> place) : place_(std::move(place)) {}

  explicit operator bool() const { return place_ != nullptr; }
  T& operator*() const { return *place_->typed(); }
  T* operator->() const { return place_->typed(); }

  template <class... Arguments>
  Tensor operator()(const Arguments&... arguments) const {
    const ScopeName scope(place_->name());
    return place_->typed()->forward(arguments...);
  }

 private:
  std::shared_ptr<const TypedChildPlace<T>> place_;
};

// What load_state_dict() found. `missing` and `unexpected` can be non-empty only when it was not strict.
struct LoadReport {
  std::size_t loaded = 0;
  std::vector<std::string> missing;     // in the module but not in the file
  std::vector<std::string> unexpected;  // in the file but not in the module
};

class Module {
 public:
  // Name of this interface in messages about slots; interfaces that slots ask for define their own.
  static constexpr std::string_view interface_name = "Module";

  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  virtual Tensor forward(const Tensor& x) = 0;
  Tensor operator()(const Tensor& x) { return forward(x); }

  // False while the next training forward may do other device work than the last one did, or do it with other
  // numbers of the host: during a warm-up, say, or where a counter's value goes into the arithmetic. Of this
  // module alone; step_state.h asks the tree. What follows a change that note_change() tells of needn't show.
  virtual bool is_steady() const { return true; }
  // Of this module alone: when it last changed what forward() does, as the number of such a change among all
  // that this process has made; 0 for never.
  std::uint64_t last_change() const { return last_change_; }
  // Adds what decides on forward()'s work and may go back to what it was: a bit-width. Of this module alone,
  // and always as many numbers.
  virtual void add_settings(std::vector<std::int64_t>& /*to*/) const {}

  virtual std::string kind() const = 0;                    // "Conv2d"
  virtual std::string describe() const { return kind(); }  // one line for summaries: kind and geometry

  // -- the tree
  // ------------------------------------------------------------------------------------------------------
  // Calls visitor(path, module) for this module (path "") and everything below, parents first. The
  // visitor may replace the module that it was given; the newcomer's subtree is then left out.
  void visit(const std::function<void(const std::string& path, Module& module)>& visitor);
  // The module at a path such as "layer1.0.conv1". ValueError, with the nearest name, if there is none.
  std::shared_ptr<Module> child(std::string_view path) const;
  // Puts another module in the place of the one at `path`; it takes over the training mode. ValueError if
  // there is no such place or the parent needs another type there.
  void replace_child(std::string_view path, std::shared_ptr<Module> module);
  // Direct children in order.
  const std::vector<std::shared_ptr<ChildPlace>>& children() const { return children_; }
  std::string summary();  // the tree, one indented line a module, with parameter counts

  // -- modes and devices
  // -----------------------------------------------------------------------------------------------
  void train(bool on = true);
  void evaluate() { train(false); }
  bool is_training() const { return training_; }
  // Moves parameters and buffers (counters stay on the host). Afterwards they are other tensors, so
  // optimizers are made after this call.
  void to(Device device);

  // -- tensors
  // -----------------------------------------------------------------------------------------------------------
  NamedTensors named_parameters();   // each tensor once, under its first name
  std::vector<Tensor> parameters();  // the same without names
  NamedTensors named_buffers();
  std::vector<Tensor> counters();  // those of the buffers that add_counter() made
  std::int64_t parameter_count();  // elements of all parameters
  // Parameters and buffers of each module, then of its children. The tensors share the module's elements.
  NamedTensors state_dict();
  // Copies values into parameters and buffers, in place. Nothing is changed unless everything fits: a
  // ValueError lists missing, unexpected and mis-shaped names. Not strict: missing and unexpected names are
  // only reported.
  LoadReport load_state_dict(const NamedTensors& state, bool strict = true);

 protected:
  // The returned references stay valid, and follow to(). An undefined tensor registers nothing visible: an
  // absent bias, say. Names are unique and without dots (ValueError).
  const Tensor& add_parameter(std::string name, Tensor tensor);
  const Tensor& add_buffer(std::string name, Tensor tensor);
  // Puts another tensor in the place of a buffer that add_buffer() returned: one of another shape, say.
  void replace_buffer(const Tensor& buffer, Tensor tensor);
  // An i64 scalar on the host, starting at 0. Files may lack it.
  const Tensor& add_counter(std::string name);
  // To be called by whatever changes what forward() does, but for the values of tensors and add_settings(): a
  // factor, another tensor in the place of a buffer, statistics that start anew.
  void note_change();
  template <class T = Module>
  Slot<T> add(std::string name, std::shared_ptr<std::type_identity_t<T>> child) {
    auto place = std::make_shared<TypedChildPlace<T>>(std::move(name));
    add_place(place, std::move(child));
    return Slot<T>(std::move(place));
  }

 private:
  enum class Role { parameter, buffer, counter };
  struct Member {
    std::string name;
    Tensor tensor;
    Role role;
  };
  struct StateEntry;

  const Tensor& add_member(std::string name, Tensor tensor, Role role);
  void add_place(std::shared_ptr<ChildPlace> place, std::shared_ptr<Module> child);
  void check_new_name(const std::string& name) const;
  std::vector<StateEntry> state_entries();
  ChildPlace& place(std::string_view path) const;

  std::deque<Member> members_;  // a deque: references to its elements stay valid
  std::vector<std::shared_ptr<ChildPlace>> children_;
  bool training_ = true;
  std::uint64_t last_change_ = 0;
};

// A tensor of zeros that collects gradients.
Tensor make_parameter(const Shape& shape);

}  // namespace qtrain
