// Host memory that a GPU copies from by itself, while the host goes on. Taking it from the system is slow, so
// buffers come from a pool and go back there.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "engine/core/device.h"

namespace qtrain::cuda {

// Movable, not copyable. Its owner may destroy it at any time: the pool hands the memory out again only when
// the last copy that was marked has finished. Whoever overwrites a buffer that was copied from asks
// finished() first.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::size_t bytes);

  void* data() const;
  std::size_t bytes() const { return bytes_; }

  void mark_copied(const Stream& stream) const;  // a copy from here has been queued on the stream
  bool finished() const;                         // nothing reads it any more; doesn't wait

 private:
  friend class PinnedPool;
  struct Block;
  struct Return {
    void operator()(Block* block) const noexcept;
  };
  std::unique_ptr<Block, Return> block_;
  std::size_t bytes_;
};

// PinnedBuffers that are known by their addresses. Thread-safe.
class PinnedBuffers {
 public:
  void* allocate(std::size_t bytes);
  void release(const void* memory) noexcept;
  bool finished(const void* memory) const;  // true for other memory

 private:
  mutable std::mutex mutex_;
  std::map<const void*, PinnedBuffer> buffers_;
};

// Whether these bytes lie in a PinnedBuffer that is alive, so that a copy needs no staging.
bool is_pinned(const void* data, std::size_t bytes);
// mark_copied() of the buffer around `data`.
void mark_pinned_copied(const void* data, const Stream& stream);

}  // namespace qtrain::cuda
