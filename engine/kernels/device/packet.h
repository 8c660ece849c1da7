// Memory accesses of 16 bytes and more: a thread reads and writes packets of neighbouring elements.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "engine/kernels/element.h"

namespace qtrain::device {

template <class T, int count>
struct alignas(std::min<std::size_t>(16, sizeof(T) * count)) Packet {
  T at[count];
};

// How many elements a thread takes at once: 16 bytes of the narrowest type, 8 elements at most.
template <class... T>
inline constexpr int packet_size = static_cast<int>(std::clamp<std::size_t>(16 / std::min({sizeof(T)...}), 1,
                                                                            8));

template <int count, class T>
bool is_aligned(const T* array) {
  return reinterpret_cast<std::uintptr_t>(array) % alignof(Packet<T, count>) == 0;
}

template <int count, class T>
QTRAIN_HOST_DEVICE Packet<T, count> load_packet(const T* from) {
  return *reinterpret_cast<const Packet<T, count>*>(from);
}

template <int count, class T>
QTRAIN_HOST_DEVICE void store_packet(T* to, const Packet<T, count>& packet) {
  *reinterpret_cast<Packet<T, count>*>(to) = packet;
}

// The arrays that a kernel reads, or reads and writes, element by element.
template <class... T>
class Arrays {
 public:
  explicit Arrays(T*... arrays) : arrays_(arrays...) {}

  // f(array...) with the address of element i of each.
  template <class F>
  QTRAIN_HOST_DEVICE auto at(std::int64_t i, F&& f) const {
    return at(i, f, std::index_sequence_for<T...>());
  }

 private:
  template <class F, std::size_t... k>
  QTRAIN_HOST_DEVICE auto at([[maybe_unused]] std::int64_t i, F& f, std::index_sequence<k...>) const {
    return f((std::get<k>(arrays_) + i)...);
  }
  std::tuple<T*...> arrays_;
};

}  // namespace qtrain::device
