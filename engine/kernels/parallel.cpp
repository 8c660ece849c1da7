#include "engine/kernels/parallel.h"

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <exception>

#include "engine/core/error.h"

namespace qtrain {
namespace {

// Denormal numbers cost a hundred times a normal one's time and carry nothing in training.
void flush_denormals() {
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
  _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_ON);
}

}  // namespace

int thread_count() {
  return omp_get_max_threads();
}

void set_thread_count(int threads) {
  omp_set_num_threads(std::max(1, threads));
}

void detail::run_parallel(std::int64_t n, std::int64_t grain, void (*body)(void*, std::int64_t, std::int64_t),
                          void* context) {
  if (n <= 0) return;
  const std::int64_t wanted = std::min<std::int64_t>(thread_count(), (n + grain - 1) / grain);
  if (wanted <= 1 || omp_in_parallel() != 0) {
    flush_denormals();
    body(context, 0, n);
    return;
  }
  std::exception_ptr failure;
#pragma omp parallel num_threads(static_cast <int>(wanted))
  {
    flush_denormals();
    const std::int64_t thread = omp_get_thread_num();
    const std::int64_t threads = omp_get_num_threads();
    // Parts start at multiples of 64 elements, so that no two threads write one cache line.
    const auto bound = [&](std::int64_t t) {
      return t == threads ? n : (n >= 64 * threads ? n / 64 * t / threads * 64 : n * t / threads);
    };
    try {
      if (bound(thread) < bound(thread + 1)) body(context, bound(thread), bound(thread + 1));
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace qtrain
