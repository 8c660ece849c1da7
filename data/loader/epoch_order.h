// Which samples a process sees in an epoch, and in which order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "engine/core/rng.h"

namespace qtrain::data {

// A process among those that share a data set.
struct Shard {
  std::size_t rank = 0;  // below world_size
  std::size_t world_size = 1;
};

// The epoch's order of all samples is dealt out like cards: place p of the process `rank` of W is place
// p * W + rank of the whole. So every sample is seen once by all processes together, their numbers differ by
// one at most, and batches k of size B of all processes are batch k of size B * W of a single one.
class EpochOrder {
 public:
  // `shuffle`: a permutation that depends on seed and epoch; else the data set's own order.
  EpochOrder(std::size_t samples, bool shuffle, std::uint64_t seed, std::uint64_t epoch, Shard shard)
      : samples_(samples), shard_(shard) {
    if (shuffle) permutation_.emplace(samples, seed, epoch);
  }

  // Samples of this process.
  std::size_t size() const {
    return samples_ / shard_.world_size + (shard_.rank < samples_ % shard_.world_size ? 1 : 0);
  }
  // The index in the data set of the sample at a place below size().
  std::size_t operator()(std::size_t place) const {
    const std::size_t position = place * shard_.world_size + shard_.rank;
    return permutation_ ? (*permutation_)(position) : position;
  }

 private:
  std::size_t samples_;
  Shard shard_;
  std::optional<RandomPermutation> permutation_;
};

}  // namespace qtrain::data
