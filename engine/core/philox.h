// The generator behind engine/core/rng.h as functions of host and device: Philox4x32-10 (Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011), and the mixing that makes its counters.
#pragma once

#include <array>
#include <cstdint>

#include "engine/core/host_device.h"

namespace qtrain {

QTRAIN_HOST_DEVICE constexpr std::uint32_t low_word(std::uint64_t v) {
  return static_cast<std::uint32_t>(v);
}
QTRAIN_HOST_DEVICE constexpr std::uint32_t high_word(std::uint64_t v) {
  return static_cast<std::uint32_t>(v >> 32);
}

// splitmix64's finalizer: spreads (epoch, index, purpose) over the counter words that a stream doesn't count
// in.
QTRAIN_HOST_DEVICE constexpr std::uint64_t mix_bits(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

QTRAIN_HOST_DEVICE std::array<std::uint32_t, 4> philox_block(std::array<std::uint32_t, 4> c,
                                                             std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = 0xD2511F53ULL * c[0];
    const std::uint64_t product1 = 0xCD9E8D57ULL * c[2];
    c = {high_word(product1) ^ c[1] ^ k[0], low_word(product1), high_word(product0) ^ c[3] ^ k[1],
         low_word(product0)};
    k[0] += 0x9E3779B9U;
    k[1] += 0xBB67AE85U;
  }
  return c;
}

}  // namespace qtrain
