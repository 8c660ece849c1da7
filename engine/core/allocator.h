// Memory of one device: large segments from the system, cut into blocks, merged again when freed, and never
// given back while the program trains, so that from the second step on a training run asks the system for
// nothing.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <set>

namespace qtrain {

struct MemoryStatistics {
  std::size_t in_use = 0;              // bytes handed out now
  std::size_t peak_in_use = 0;         // the largest in_use since the last reset_peak()
  std::size_t reserved = 0;            // bytes taken from the system
  std::size_t system_allocations = 0;  // how often the system was asked
};

class Allocator {
 public:
  Allocator() = default;
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;
  virtual ~Allocator() = default;

  // A cache line and the widest vector register; devices may align more.
  static constexpr std::size_t alignment = 64;

  virtual void* allocate(std::size_t bytes) = 0;  // aligned; throws IoError when memory is exhausted
  virtual void release(void* block, std::size_t bytes) noexcept = 0;
  virtual MemoryStatistics statistics() const = 0;
  virtual void reset_peak() = 0;
};

// Where segments come from: the system's heap, or cudaMalloc.
struct SegmentSource {
  void* (*acquire)(std::size_t bytes);  // nullptr when exhausted; throws where it must not be asked
  void (*free)(void* segment, std::size_t bytes);
};

// Best fit with splitting and coalescing. Blocks start at multiples of `unit`, as far as segments do.
// Thread-safe.
class CachingAllocator final : public Allocator {
 public:
  explicit CachingAllocator(SegmentSource source, std::size_t unit = alignment)
      : source_(source), unit_(unit) {}
  ~CachingAllocator() override;

  void* allocate(std::size_t bytes) override;
  void release(void* block, std::size_t bytes) noexcept override;
  MemoryStatistics statistics() const override;
  void reset_peak() override;

 private:
  struct Block {
    std::size_t bytes;
    bool free;
    bool first_of_segment;  // its left neighbour in memory belongs to another segment
  };
  using Blocks = std::map<std::byte*, Block>;
  using FreeSet = std::set<std::pair<std::size_t, std::byte*>>;  // by size, then address

  Blocks::iterator grow(std::size_t bytes);
  Blocks::iterator take(std::size_t size);  // a free block of at least this size, out of the free set
  bool merge_right(Blocks::iterator left);  // both out of the free set afterwards

  SegmentSource source_;
  std::size_t unit_;
  mutable std::mutex mutex_;
  Blocks blocks_;  // by address
  FreeSet free_;
  std::map<std::byte*, std::size_t> segments_;
  MemoryStatistics statistics_;
};

// Passes every request to the system: lets AddressSanitizer see each tensor's bounds.
class SystemAllocator final : public Allocator {
 public:
  void* allocate(std::size_t bytes) override;
  void release(void* block, std::size_t bytes) noexcept override;
  MemoryStatistics statistics() const override;
  void reset_peak() override;

 private:
  mutable std::mutex mutex_;
  MemoryStatistics statistics_;
};

}  // namespace qtrain
