// Reductions of a block and of a grid, in an order that depends on the sizes alone: float32 within a thread,
// then double, in a tree over the threads, and over the blocks in the block that finishes last. Nothing is
// added up by atomic operations.
#pragma once

#include <cstdint>

#include "engine/kernels/device/thread.h"
#include "engine/kernels/functor.h"

namespace qtrain::device {

inline constexpr int reduction_threads = 256;

template <int K>
struct BlockSums {
  double values[K][reduction_threads];
};

// shared.values[k][0] from those of all threads; ready in all threads. Combine is Sum, Maximum or Minimum.
template <class Combine, int K, class Thread>
QTRAIN_HOST_DEVICE void combine_threads(const Thread& t, BlockSums<K>& shared) {
  t.sync();
  for (int half = reduction_threads / 2; half > 0; half /= 2) {
    if (t.thread < half)
      for (int k = 0; k < K; ++k)
        shared.values[k][t.thread] =
            Combine::combine_blocks(shared.values[k][t.thread], shared.values[k][t.thread + half]);
    t.sync();
  }
}

// Results of parts, merged by groups: results[k * groups + group] from partial[part * terms + k], where the
// parts of a group follow each other. Run by one block, after t.arrive_last(). K terms are merged at a time.
template <class Combine, int K, class Thread>
QTRAIN_HOST_DEVICE void merge_parts(const Thread& t, BlockSums<K>& shared, const double* partial, int terms,
                                    std::int64_t groups, std::int64_t per_group, float* results) {
  constexpr std::int64_t few = 64;  // parts that one thread merges by itself
  const auto merged = [&](std::int64_t group, std::int64_t k, std::int64_t first, std::int64_t step) {
    auto total = static_cast<double>(Combine::identity);
    for (std::int64_t p = first; p < per_group; p += step)
      total = Combine::combine_blocks(total, t.read(partial + (group * per_group + p) * terms + k));
    return total;
  };
  if (per_group <= few) {
    for (std::int64_t i = t.thread; i < groups * terms; i += reduction_threads)
      results[i % terms * groups + i / terms] = static_cast<float>(merged(i / terms, i % terms, 0, 1));
    return;
  }
  for (std::int64_t group = 0; group < groups; ++group)
    for (int first = 0; first < terms; first += K) {
      const int count = terms - first < K ? terms - first : K;
      for (int k = 0; k < K; ++k)
        shared.values[k][t.thread] = k < count ? merged(group, first + k, t.thread, reduction_threads) : 0.0;
      combine_threads<Combine>(t, shared);
      if (t.thread < count)
        results[(first + t.thread) * groups + group] = static_cast<float>(shared.values[t.thread][0]);
      t.sync();  // before the next values are written
    }
}

}  // namespace qtrain::device
