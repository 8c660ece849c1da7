// Vectors for values on their way to a device: it copies from their memory directly.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/backend/backend.h"

namespace qtrain {

// Memory of Backend::allocate_host. It goes with the vector when that is moved or swapped; a copy of a vector
// has plain memory. New elements of arithmetic types are not set to 0.
template <class T>
class HostAllocator {
 public:
  using value_type = T;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  HostAllocator() = default;  // plain memory
  explicit HostAllocator(Backend& backend) : backend_(&backend) {}
  template <class U>
  HostAllocator(const HostAllocator<U>& other) : backend_(other.backend()) {}

  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    return static_cast<T*>(backend_ == nullptr ? ::operator new(bytes) : backend_->allocate_host(bytes));
  }
  void deallocate(T* memory, std::size_t /*count*/) noexcept {
    if (backend_ == nullptr)
      ::operator delete(memory);
    else
      backend_->release_host(memory);
  }
  template <class U, class... Arguments>
  void construct(U* place, Arguments&&... arguments) {
    if constexpr (sizeof...(Arguments) == 0)
      ::new (static_cast<void*>(place)) U;
    else
      ::new (static_cast<void*>(place)) U(std::forward<Arguments>(arguments)...);
  }
  HostAllocator select_on_container_copy_construction() const { return {}; }

  Backend* backend() const { return backend_; }
  friend bool operator==(const HostAllocator&, const HostAllocator&) = default;

 private:
  Backend* backend_ = nullptr;
};

template <class T>
using HostVector = std::vector<T, HostAllocator<T>>;

// Gives a vector `count` elements of any value in memory that may be written now. While the device still
// copies from the memory that the vector had, it gets other memory instead of waiting.
template <class T>
void renew(HostVector<T>& values, std::size_t count, Backend& backend) {
  const HostAllocator<T> allocator(backend);
  if (values.get_allocator() != allocator || !backend.is_host_idle(values.data()))
    values = HostVector<T>(allocator);
  values.resize(count);
}

}  // namespace qtrain
