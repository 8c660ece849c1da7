// Tensor: a cheap handle to a block of elements on a device. Copies share the elements and the autograd
// state.
//
// Layout: every 4-D tensor, activation or weight, is reported as N, C, H, W and stored channels-last (N, H,
// W, C); every other rank is stored row-major. Tensors are always dense: there are no strides to get wrong.
// Mathematics is free functions (engine/ops/), not members.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/core/device.h"
#include "engine/core/dtype.h"
#include "engine/core/shape.h"

namespace qtrain {

class Deferred;
class Node;

// Bytes owned on one device, shared by the tensors that view them. There are none while the work that fills
// them is pending (deferred.h); data() runs it.
class Storage {
 public:
  Storage(std::size_t bytes, Device device);
  Storage(std::size_t bytes, Device device, std::shared_ptr<Deferred> work);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const {
    if (work_ != nullptr) finish();
    return data_;
  }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  const std::shared_ptr<Deferred>& work() const { return work_; }
  void receive();  // gets memory for the results of its work, which is no longer pending then

  // Counts in-place changes, so that the tape notices when a saved tensor was overwritten.
  std::uint64_t version() const { return version_; }
  void bump_version() { ++version_; }

 private:
  void finish() const;

  void* data_ = nullptr;
  std::size_t bytes_;
  Device device_;
  std::uint64_t version_ = 0;
  std::shared_ptr<Deferred> work_;
};

class Tensor {
 public:
  Tensor() = default;  // undefined: "no tensor"

  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = {});
  static Tensor full(const Shape& shape, float value, Device device = {});
  static Tensor empty_like(const Tensor& other) {
    return empty(other.shape(), other.dtype(), other.device());
  }
  static Tensor zeros_like(const Tensor& other) {
    return zeros(other.shape(), other.dtype(), other.device());
  }
  static Tensor scalar(float value, Device device = {}) { return full({}, value, device); }
  // Elements that `work` computes when they are first asked for; it is told by an Owed (deferred.h).
  static Tensor deferred(const Shape& shape, DType dtype, Device device, std::shared_ptr<Deferred> work);

  // Values in N, C, H, W order (PyTorch's order in memory), whatever the storage order.
  template <class T>
  static Tensor from_values(const Shape& shape, std::span<const T> values, Device device = {});
  static Tensor from_values(const Shape& shape, const std::vector<float>& values, Device device = {}) {
    return from_values<float>(shape, std::span<const float>(values), device);
  }
  // The inverse: a copy of the elements on the host, in N, C, H, W order. Counted as a host read.
  template <class T = float>
  std::vector<T> values() const;

  bool defined() const { return impl_ != nullptr; }
  const Shape& shape() const;
  std::size_t rank() const { return shape().rank(); }
  std::int64_t dim(std::size_t i) const { return shape()[i]; }
  std::int64_t numel() const;
  DType dtype() const;
  Device device() const;
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype()); }
  std::string str() const;  // "f32[2, 3]" or "no tensor", for messages

  void* raw() const;  // the first byte, on the tensor's device
  template <class T>
  T* data() const {  // throws DTypeError unless T is the element type
    require_dtype(dtype_of<T>);
    return static_cast<T*>(raw());
  }

  // The work that will compute the elements; nullptr where they are there.
  std::shared_ptr<Deferred> pending() const;

  // The value of a one-element tensor, on the host. Waits for the device; counted (see host_read.h).
  float item() const;

  // The same elements under another shape. Refused where channels-last order would make it a different
  // function than in N, C, H, W order; the op reshape() copies in that case.
  Tensor view(const Shape& shape) const;
  Tensor clone() const;  // a copy of the elements, off the tape
  Tensor to(
      Device device) const;  // a copy on another device, or *this where it is there already; off the tape
  Tensor detach() const;     // the same elements, off the tape
  void copy_from(const Tensor& other) const;  // overwrites the elements; shapes and dtypes must agree
  void bump_version() const;
  std::uint64_t storage_version() const;

  // True when no other tensor can see these elements, so that they may be overwritten.
  bool is_sole_owner() const;
  bool shares_storage_with(const Tensor& other) const;

  // -- autograd
  // ----------------------------------------------------------------------------------------------
  bool requires_grad() const;             // a leaf that collects gradients, or computed from one
  Tensor& set_requires_grad(bool value);  // for leaves, f32
  Tensor grad() const;                    // undefined before the first backward()
  void set_grad(Tensor gradient) const;
  const std::shared_ptr<Node>& producer() const;  // nullptr for leaves
  std::size_t producer_output() const;

  struct Impl;

 private:
  friend class Owed;
  friend class Tape;
  static Tensor over(std::shared_ptr<Storage> storage, const Shape& shape, DType dtype);
  explicit Tensor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  void require_dtype(DType expected) const;
  const Impl& impl() const;

  std::shared_ptr<Impl> impl_;
};

}  // namespace qtrain
