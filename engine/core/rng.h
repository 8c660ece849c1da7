// Counter-based random numbers: every draw is a pure function of (seed, purpose, epoch, index, position), so
// results depend neither on thread count nor on what was drawn before, and resuming needs no generator state.
// The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace qtrain {

// What a stream is for. Streams of different purposes never overlap.
enum class RandomPurpose : std::uint32_t {
  init = 1,      // initial weights; index = parameter number
  shuffle = 2,   // epoch order
  augment = 3,   // crops, flips, colours, ...; index = sample
  dropout = 4,   // masks inside the network; index = step
  generate = 5,  // synthetic data; index = sample
  replace = 6,   // substitutes for unreadable samples; index = sample
  mix = 7,       // Mixup and CutMix; index = batch
  user = 100,    // free for programs built on the library
};

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t epoch = 0, std::uint64_t index = 0);

  std::uint32_t next();                      // 32 uniform bits
  double uniform();                          // [0, 1), 53 bits
  double uniform(double low, double high);   // [low, high)
  std::uint64_t below(std::uint64_t bound);  // 0 .. bound-1, without bias; bound >= 1
  double normal();                           // mean 0, standard deviation 1 (Box-Muller)
  bool bernoulli(double probability_of_true);

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 4> block_{};
  unsigned used_ = 4;
  double spare_normal_ = 0;
  bool has_spare_ = false;
};

// The Philox bijection itself, exposed for tests and for kernels that draw in parallel.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// A keyed permutation of 0..size-1 evaluated point by point (a Feistel network on the next power of four,
// with cycle walking), so that an epoch's order needs no shuffled array.
class RandomPermutation {
 public:
  RandomPermutation(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch);
  std::uint64_t operator()(std::uint64_t position) const;  // position < size

 private:
  std::uint64_t size_;
  unsigned half_bits_;
  std::array<std::uint32_t, 2> key_;
  std::uint32_t epoch_low_;
  std::uint32_t epoch_high_;
};

}  // namespace qtrain
