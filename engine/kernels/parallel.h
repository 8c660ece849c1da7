// Threads and temporary memory for kernels that run on the host.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/core/tensor.h"

namespace qtrain {

inline constexpr std::int64_t map_grain = 16384;  // elements below which a second thread doesn't pay

// Number of threads that kernels use; at least 1. Set once at start-up, or never (OMP_NUM_THREADS, then all
// cores).
int thread_count();
void set_thread_count(int threads);

namespace detail {
void run_parallel(std::int64_t n, std::int64_t grain, void (*body)(void*, std::int64_t, std::int64_t),
                  void* context);
}

// Calls body(begin, end) on contiguous parts of 0..n-1, one a thread, each of at least `grain` iterations.
// The parts depend on the number of threads: bodies must not let that show in their results.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  detail::run_parallel(
      n, grain,
      [](void* context, std::int64_t begin, std::int64_t end) {
        (*static_cast<Plain*>(context))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&body)));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

// Temporary memory of a kernel, from the device's allocator.
template <class T>
class Scratch {
 public:
  Scratch(const Stream& stream, std::int64_t count)
      : storage_(static_cast<std::size_t>(count) * sizeof(T), stream.device) {}
  T* data() const { return static_cast<T*>(storage_.data()); }

 private:
  Storage storage_;
};

}  // namespace qtrain
