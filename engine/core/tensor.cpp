#include "engine/core/tensor.h"

#include <fmt/format.h>

#include <cstring>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/deferred.h"
#include "engine/core/error.h"
#include "engine/core/host_read.h"
#include "engine/core/layout.h"
#include "engine/kernels/fill.h"

namespace qtrain {

struct Tensor::Impl {
  std::shared_ptr<Storage> storage;
  Shape shape;
  DType dtype = DType::f32;
  bool requires_grad = false;
  Tensor grad;
  std::shared_ptr<Node> producer;
  std::size_t producer_output = 0;
};

namespace {

std::atomic<std::uint64_t> host_reads{0};
std::atomic<std::uint64_t> device_synchronizations{0};

std::size_t bytes_of(const Shape& shape, DType dtype) {
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<std::size_t>(shape.numel()), size_of(dtype), &bytes))
    throw ShapeError({.where = "tensor",
                      .what = "number of bytes overflows",
                      .got = fmt::format("{}{}", name_of(dtype), shape.str()),
                      .expected = "",
                      .hint = ""});
  return bytes;
}

}  // namespace

Storage::Storage(std::size_t bytes, Device device)
    : data_(backend(device).allocator().allocate(bytes)), bytes_(bytes), device_(device) {}

Storage::Storage(std::size_t bytes, Device device, std::shared_ptr<Deferred> work)
    : bytes_(bytes), device_(device), work_(std::move(work)) {}

Storage::~Storage() {
  if (work_ == nullptr) backend(device_).allocator().release(data_, bytes_);
}

void Storage::receive() {
  data_ = backend(device_).allocator().allocate(bytes_);
  work_.reset();
}

void Storage::finish() const {
  const std::shared_ptr<Deferred> work = work_;  // receive() drops it while it runs
  work->compute();
}

Tensor Tensor::over(std::shared_ptr<Storage> storage, const Shape& shape, DType dtype) {
  auto impl = std::make_shared<Impl>();
  impl->storage = std::move(storage);
  impl->shape = shape;
  impl->dtype = dtype;
  return Tensor(std::move(impl));
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  return over(std::make_shared<Storage>(bytes_of(shape, dtype), device), shape, dtype);
}

Tensor Tensor::deferred(const Shape& shape, DType dtype, Device device, std::shared_ptr<Deferred> work) {
  return over(std::make_shared<Storage>(bytes_of(shape, dtype), device, std::move(work)), shape, dtype);
}

std::shared_ptr<Deferred> Tensor::pending() const {
  return impl().storage->work();
}

Owed::Owed(const Tensor& result)
    : storage_(result.impl().storage), shape_(result.shape()), dtype_(result.dtype()) {}

Tensor Owed::receive() const {
  const std::shared_ptr<Storage> storage = storage_.lock();
  if (storage == nullptr || storage->work() == nullptr) return {};
  storage->receive();
  return Tensor::over(storage, shape_, dtype_);
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  Backend& b = backend(device);
  b.fill_zero(b.stream(), t.raw(), t.bytes());
  return t;
}

Tensor Tensor::full(const Shape& shape, float value, Device device) {
  Tensor t = empty(shape, DType::f32, device);
  fill(backend(device).stream(), t.data<float>(), t.numel(), value);
  return t;
}

template <class T>
Tensor Tensor::from_values(const Shape& shape, std::span<const T> values, Device device) {
  if (static_cast<std::int64_t>(values.size()) != shape.numel())
    throw ShapeError({.where = "tensor",
                      .what = "number of values doesn't fit the shape",
                      .got = fmt::format("{} values for {}", values.size(), shape.str()),
                      .expected = std::to_string(shape.numel()),
                      .hint = ""});
  std::vector<T> reordered;
  if (order_differs(shape)) {
    reordered.resize(values.size());
    to_channels_last(shape, values.data(), reordered.data());
    values = reordered;
  }
  Tensor t = empty(shape, dtype_of<T>, device);
  Backend& b = backend(device);
  b.copy(b.stream(), t.raw(), values.data(), values.size_bytes(), CopyKind::host_to_device);
  return t;
}

template <class T>
std::vector<T> Tensor::values() const {
  require_dtype(dtype_of<T>);
  std::vector<T> stored(static_cast<std::size_t>(numel()));
  host_read(*this, stored.data());
  if (!order_differs(shape())) return stored;
  std::vector<T> result(stored.size());
  from_channels_last(shape(), stored.data(), result.data());
  return result;
}

#define QTRAIN_INSTANTIATE(T)                                                       \
  template Tensor Tensor::from_values<T>(const Shape&, std::span<const T>, Device); \
  template std::vector<T> Tensor::values<T>() const;
QTRAIN_INSTANTIATE(float)
QTRAIN_INSTANTIATE(double)
QTRAIN_INSTANTIATE(BFloat16)
QTRAIN_INSTANTIATE(std::int8_t)
QTRAIN_INSTANTIATE(std::uint8_t)
QTRAIN_INSTANTIATE(std::int16_t)
QTRAIN_INSTANTIATE(std::int32_t)
QTRAIN_INSTANTIATE(std::int64_t)
#undef QTRAIN_INSTANTIATE

const Tensor::Impl& Tensor::impl() const {
  if (impl_ == nullptr)
    throw ValueError(
        {.where = "tensor", .what = "an undefined tensor was used", .got = "", .expected = "", .hint = ""});
  return *impl_;
}

const Shape& Tensor::shape() const {
  return impl().shape;
}
std::int64_t Tensor::numel() const {
  return impl().shape.numel();
}
DType Tensor::dtype() const {
  return impl().dtype;
}
Device Tensor::device() const {
  return impl().storage->device();
}
void* Tensor::raw() const {
  return impl().storage->data();
}

std::string Tensor::str() const {
  return defined() ? fmt::format("{}{}", name_of(dtype()), shape().str()) : "no tensor";
}

void Tensor::require_dtype(DType expected) const {
  if (dtype() != expected)
    throw DTypeError({.where = "tensor",
                      .what = "wrong element type",
                      .got = str(),
                      .expected = std::string(name_of(expected)),
                      .hint = ""});
}

float Tensor::item() const {
  if (numel() != 1)
    throw ShapeError(
        {.where = "item", .what = "not a single value", .got = str(), .expected = "one element", .hint = ""});
  require_dtype(DType::f32);
  float value = 0;
  host_read(*this, &value);
  return value;
}

Tensor Tensor::view(const Shape& shape) const {
  const bool reorders = order_differs(this->shape()) || order_differs(shape);
  const bool same_order = this->shape() == shape || !reorders;
  if (shape.numel() != numel() || !same_order)
    throw ShapeError({.where = "view",
                      .what = "not the same elements in the same order",
                      .got = str(),
                      .expected = shape.str(),
                      .hint = "reshape() copies where it must"});
  return over(impl_->storage, shape, impl_->dtype);
}

Tensor Tensor::clone() const {
  Tensor copy = empty(shape(), dtype(), device());
  copy.copy_from(*this);
  return copy;
}

Tensor Tensor::to(Device target) const {
  if (target == device()) return *this;
  const Device host{};
  if (device() != host && target != host) return to(host).to(target);
  Tensor result = empty(shape(), dtype(), target);
  if (target.type == DeviceType::cpu) {
    host_read(*this, result.raw());
  } else {
    Backend& b = backend(target);
    b.copy(b.stream(), result.raw(), raw(), bytes(), CopyKind::host_to_device);
  }
  return result;
}

Tensor Tensor::detach() const {
  return view(shape());
}

void Tensor::copy_from(const Tensor& other) const {
  if (dtype() != other.dtype())
    throw DTypeError(
        {.where = "copy", .what = "tensors differ", .got = other.str(), .expected = str(), .hint = ""});
  if (shape() != other.shape())
    throw ShapeError(
        {.where = "copy", .what = "tensors differ", .got = other.str(), .expected = str(), .hint = ""});
  if (device() != other.device()) return copy_from(other.to(device()));
  Backend& b = backend(device());
  b.copy(b.stream(), raw(), other.raw(), bytes(), CopyKind::device_to_device);
  bump_version();
}

void Tensor::bump_version() const {
  impl().storage->bump_version();
}
std::uint64_t Tensor::storage_version() const {
  return impl().storage->version();
}

bool Tensor::is_sole_owner() const {
  return impl_.use_count() == 1 && impl().storage.use_count() == 1;
}

bool Tensor::shares_storage_with(const Tensor& other) const {
  return defined() && other.defined() && impl_->storage == other.impl_->storage;
}

bool Tensor::requires_grad() const {
  return impl().requires_grad || impl_->producer != nullptr;
}

Tensor& Tensor::set_requires_grad(bool value) {
  impl();
  if (value && dtype() != DType::f32)
    throw DTypeError({.where = "requires_grad",
                      .what = "only f32 tensors collect gradients",
                      .got = str(),
                      .expected = "f32",
                      .hint = ""});
  impl_->requires_grad = value;
  return *this;
}

Tensor Tensor::grad() const {
  return impl().grad;
}

void Tensor::set_grad(Tensor gradient) const {
  impl();
  impl_->grad = std::move(gradient);
}

const std::shared_ptr<Node>& Tensor::producer() const {
  return impl().producer;
}
std::size_t Tensor::producer_output() const {
  return impl().producer_output;
}

void host_read(const Tensor& tensor, void* destination) {
  Backend& b = backend(tensor.device());
  ++host_reads;
  b.copy(b.stream(), destination, tensor.raw(), tensor.bytes(), CopyKind::device_to_host);
  b.synchronize(b.stream());
}

std::uint64_t host_read_count() {
  return host_reads;
}

std::uint64_t device_synchronization_count() {
  return device_synchronizations;
}

void count_device_synchronization() {
  ++device_synchronizations;
}

void Tape::attach(const Tensor& output, std::shared_ptr<Node> producer, std::size_t index) {
  output.impl_->producer = std::move(producer);
  output.impl_->producer_output = index;
}

}  // namespace qtrain
