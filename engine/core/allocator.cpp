#include "engine/core/allocator.h"

#include <algorithm>
#include <cstdlib>

#include "engine/core/error.h"

namespace qtrain {
namespace {

constexpr std::size_t smallest_segment = std::size_t{16} << 20;
constexpr std::size_t smallest_rest = 1024;  // a split that would leave less isn't worth a block

constexpr std::size_t most_bytes = std::size_t{1} << 56;  // beyond any machine, and far from overflow

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

[[noreturn]] void throw_exhausted(std::size_t bytes) {
  throw IoError({.where = "memory",
                 .what = "out of memory",
                 .got = "a request for " + std::to_string(bytes) + " bytes",
                 .expected = "",
                 .hint = "use a smaller --batch-size or image size"});
}

// What a request takes in memory.
std::size_t block_size(std::size_t bytes, std::size_t unit = Allocator::alignment) {
  if (bytes > most_bytes) throw_exhausted(bytes);
  return round_up(std::max<std::size_t>(bytes, 1), unit);
}

}  // namespace

CachingAllocator::~CachingAllocator() {
  for (const auto& [segment, bytes] : segments_) source_.free(segment, bytes);
}

CachingAllocator::Blocks::iterator CachingAllocator::grow(std::size_t bytes) {
  // Segments grow with what is already held, so that their number stays logarithmic.
  const std::size_t wanted = std::max({smallest_segment, round_up(bytes, smallest_segment / 8),
                                       round_up(statistics_.reserved / 8, smallest_segment)});
  std::size_t size = wanted;
  void* segment = source_.acquire(size);
  if (segment == nullptr) {
    size = round_up(bytes, unit_);
    segment = source_.acquire(size);
  }
  if (segment == nullptr) throw_exhausted(bytes);
  auto* start = static_cast<std::byte*>(segment);
  segments_.emplace(start, size);
  statistics_.reserved += size;
  ++statistics_.system_allocations;
  return blocks_.emplace(start, Block{size, true, true}).first;
}

CachingAllocator::Blocks::iterator CachingAllocator::take(std::size_t size) {
  const auto fit = free_.lower_bound({size, nullptr});
  if (fit == free_.end()) return grow(size);
  const auto block = blocks_.find(fit->second);
  free_.erase(fit);
  return block;
}

void* CachingAllocator::allocate(std::size_t bytes) {
  const std::size_t size = block_size(bytes, unit_);
  const std::scoped_lock lock(mutex_);
  const auto block = take(size);
  const std::size_t rest = block->second.bytes - size;
  if (rest >= smallest_rest) {
    block->second.bytes = size;
    std::byte* const rest_start = block->first + size;
    blocks_.emplace_hint(std::next(block), rest_start, Block{rest, true, false});
    free_.emplace(rest, rest_start);
  }
  block->second.free = false;
  statistics_.in_use += block->second.bytes;
  statistics_.peak_in_use = std::max(statistics_.peak_in_use, statistics_.in_use);
  return block->first;
}

// Makes one of two free neighbours; `left` isn't in the free set, `right` is.
bool CachingAllocator::merge_right(Blocks::iterator left) {
  const auto right = std::next(left);
  if (right == blocks_.end() || !right->second.free || right->second.first_of_segment) return false;
  free_.erase({right->second.bytes, right->first});
  left->second.bytes += right->second.bytes;
  blocks_.erase(right);
  return true;
}

void CachingAllocator::release(void* address, std::size_t /*bytes*/) noexcept {
  const std::scoped_lock lock(mutex_);
  auto block = blocks_.find(static_cast<std::byte*>(address));
  statistics_.in_use -= block->second.bytes;
  block->second.free = true;
  merge_right(block);
  if (!block->second.first_of_segment) {
    const auto left = std::prev(block);
    if (left->second.free) {
      free_.erase({left->second.bytes, left->first});
      left->second.bytes += block->second.bytes;
      blocks_.erase(block);
      block = left;
    }
  }
  free_.emplace(block->second.bytes, block->first);
}

MemoryStatistics CachingAllocator::statistics() const {
  const std::scoped_lock lock(mutex_);
  return statistics_;
}

void CachingAllocator::reset_peak() {
  const std::scoped_lock lock(mutex_);
  statistics_.peak_in_use = statistics_.in_use;
}

void* SystemAllocator::allocate(std::size_t bytes) {
  const std::size_t size = block_size(bytes);
  void* block = std::aligned_alloc(alignment, size);
  if (block == nullptr) throw_exhausted(bytes);
  const std::scoped_lock lock(mutex_);
  statistics_.in_use += size;
  statistics_.reserved += size;
  ++statistics_.system_allocations;
  statistics_.peak_in_use = std::max(statistics_.peak_in_use, statistics_.in_use);
  return block;
}

void SystemAllocator::release(void* block, std::size_t bytes) noexcept {
  std::free(block);  // NOLINT(cppcoreguidelines-no-malloc): the counterpart of aligned_alloc
  const std::size_t size = round_up(std::max<std::size_t>(bytes, 1), alignment);
  const std::scoped_lock lock(mutex_);
  statistics_.in_use -= size;
  statistics_.reserved -= size;
}

MemoryStatistics SystemAllocator::statistics() const {
  const std::scoped_lock lock(mutex_);
  return statistics_;
}

void SystemAllocator::reset_peak() {
  const std::scoped_lock lock(mutex_);
  statistics_.peak_in_use = statistics_.in_use;
}

}  // namespace qtrain
