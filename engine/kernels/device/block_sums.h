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

// A tree over the block's threads as rows of `across` threads side by side: merge(i, j) takes the value of
// thread j into that of thread i, until those of the first row hold what their columns had. Ready in all
// threads.
template <class Thread, class Merge>
QTRAIN_HOST_DEVICE void merge_threads(const Thread& t, std::int64_t across, Merge&& merge) {
  t.sync();
  for (std::int64_t half = reduction_threads / across / 2; half > 0; half /= 2) {
    const std::int64_t distance = half * across;
    if (t.thread < distance) merge(t.thread, t.thread + distance);
    t.sync();
  }
}

// values[k][i] for k < count and i < across from those of all threads of column i. Combine is Sum, Maximum or
// Minimum.
template <class Combine, class Thread>
QTRAIN_HOST_DEVICE void combine_threads(const Thread& t, double (*values)[reduction_threads], int count,
                                        std::int64_t across) {
  merge_threads(t, across, [&](std::int64_t i, std::int64_t j) {
    for (int k = 0; k < count; ++k) values[k][i] = Combine::combine_blocks(values[k][i], values[k][j]);
  });
}

// shared.values[k][0] from those of all threads.
template <class Combine, int K, class Thread>
QTRAIN_HOST_DEVICE void combine_threads(const Thread& t, BlockSums<K>& shared) {
  combine_threads<Combine>(t, shared.values, K, 1);
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
