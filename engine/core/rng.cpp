#include "engine/core/rng.h"

#include <cmath>
#include <numbers>

#include "engine/core/philox.h"

namespace qtrain {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  return philox_block(counter, key);
}

RandomStream::RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t epoch,
                           std::uint64_t index) {
  const std::uint64_t key = mix_bits(seed ^ (static_cast<std::uint64_t>(purpose) << 32));
  const std::uint64_t place = mix_bits(mix_bits(epoch) + index);
  key_ = {low_word(key), high_word(key)};
  counter_ = {0, low_word(index), low_word(place), high_word(place)};
}

std::uint32_t RandomStream::next() {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[used_++];
}

double RandomStream::uniform() {
  const std::uint64_t upper = next();
  const std::uint64_t bits = (upper << 32 | next()) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

double RandomStream::uniform(double lower, double upper) {
  return lower + (upper - lower) * uniform();
}

std::uint64_t RandomStream::below(std::uint64_t bound) {
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % bound;  // the largest multiple of bound that fits
  std::uint64_t bits = 0;
  do {
    const std::uint64_t upper = next();
    bits = upper << 32 | next();
  } while (bits >= limit);
  return bits % bound;
}

double RandomStream::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_normal_;
  }
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));  // 1-u is in (0, 1]
  const double angle = 2 * std::numbers::pi * uniform();
  spare_normal_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

bool RandomStream::bernoulli(double probability_of_true) {
  return uniform() < probability_of_true;
}

RandomPermutation::RandomPermutation(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch)
    : size_(size), half_bits_(1), epoch_low_(low_word(epoch)), epoch_high_(high_word(epoch)) {
  while (half_bits_ < 32 && (1ULL << (2 * half_bits_)) < size) ++half_bits_;
  const std::uint64_t key = mix_bits(seed ^ (static_cast<std::uint64_t>(RandomPurpose::shuffle) << 32));
  key_ = {low_word(key), high_word(key)};
}

std::uint64_t RandomPermutation::operator()(std::uint64_t position) const {
  const std::uint64_t mask = (1ULL << half_bits_) - 1;
  do {  // cycle walking: re-encrypt until the image lies inside 0..size-1 (at most 4 tries on average)
    std::uint64_t left = position >> half_bits_;
    std::uint64_t right = position & mask;
    for (std::uint32_t round = 0; round < 6; ++round) {
      const std::uint32_t f = philox4x32({low_word(right), round, epoch_low_, epoch_high_}, key_)[0];
      const std::uint64_t next = left ^ (f & mask);
      left = right;
      right = next;
    }
    position = left << half_bits_ | right;
  } while (position >= size_);
  return position;
}

}  // namespace qtrain
