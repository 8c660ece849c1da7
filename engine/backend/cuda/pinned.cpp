#include "engine/backend/cuda/pinned.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/backend/cuda/runtime.h"

namespace qtrain::cuda {

struct PinnedBuffer::Block {
  std::byte* data = nullptr;
  std::size_t capacity = 0;
  std::optional<CudaEvent> last_copy;
  int device = 0;  // of last_copy: events can be recorded on their own device only

  bool finished() const { return !last_copy || last_copy->reached(); }
  void mark_copied(const Stream& stream) {
    if (!last_copy || device != stream.device.index) {
      use_device(stream.device.index);
      last_copy.emplace();
      device = stream.device.index;
    }
    last_copy->record(native(stream));
  }
};

namespace {

constexpr std::size_t smallest_block = std::size_t{64} << 10;

// Few different capacities, so that blocks find new users, and at most a quarter of one is unused: an eighth
// of the next power of two decides.
std::size_t capacity_for(std::size_t bytes) {
  const std::size_t step = std::bit_ceil(std::max(bytes, smallest_block)) / 8;
  return std::max((bytes + step - 1) / step * step, smallest_block);
}

}  // namespace

class PinnedPool {
 public:
  using Block = PinnedBuffer::Block;

  // Never destroyed, like the backends: buffers held by static objects must find it.
  static PinnedPool& instance() {
    static PinnedPool& pool = *new PinnedPool();  // NOLINT(cppcoreguidelines-owning-memory)
    return pool;
  }

  Block* take(std::size_t bytes) {
    const std::size_t capacity = capacity_for(bytes);
    const std::scoped_lock lock(mutex_);
    const auto fits = [&](const std::unique_ptr<Block>& b) {
      return b->capacity == capacity && b->finished();
    };
    const auto found = std::ranges::find_if(free_, fits);
    std::unique_ptr<Block> block;
    if (found != free_.end()) {
      block = std::move(*found);
      free_.erase(found);
    } else {
      block = std::make_unique<Block>();
      void* data = nullptr;
      check(cudaHostAlloc(&data, capacity, cudaHostAllocPortable), "cudaHostAlloc",
            fmt::format("{} bytes", capacity));
      block->data = static_cast<std::byte*>(data);
      block->capacity = capacity;
    }
    free_.reserve(free_.size() + taken_.size() + 1);  // so that giving back can't fail
    taken_.emplace(block->data, block.get());
    return block.release();
  }

  void give_back(Block* block) noexcept {
    const std::scoped_lock lock(mutex_);
    taken_.erase(block->data);
    free_.emplace_back(block);
  }

  Block* find(const void* data, std::size_t bytes) {
    const auto* begin = static_cast<const std::byte*>(data);
    const std::scoped_lock lock(mutex_);
    auto after =
        taken_.upper_bound(const_cast<std::byte*>(begin));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    if (after == taken_.begin()) return nullptr;
    Block* block = std::prev(after)->second;
    return begin + bytes <= block->data + block->capacity ? block : nullptr;
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Block>> free_;
  std::map<std::byte*, Block*> taken_;  // by address; their PinnedBuffers own them
};

void PinnedBuffer::Return::operator()(Block* block) const noexcept {
  PinnedPool::instance().give_back(block);
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : block_(PinnedPool::instance().take(bytes)), bytes_(bytes) {}

void* PinnedBuffer::data() const {
  return block_->data;
}

void PinnedBuffer::mark_copied(const Stream& stream) const {
  block_->mark_copied(stream);
}

bool PinnedBuffer::finished() const {
  return block_->finished();
}

void* PinnedBuffers::allocate(std::size_t bytes) {
  PinnedBuffer buffer(bytes);
  void* const memory = buffer.data();
  const std::scoped_lock lock(mutex_);
  buffers_.emplace(memory, std::move(buffer));
  return memory;
}

void PinnedBuffers::release(const void* memory) noexcept {
  const std::scoped_lock lock(mutex_);
  buffers_.erase(memory);
}

bool PinnedBuffers::finished(const void* memory) const {
  const std::scoped_lock lock(mutex_);
  const auto found = buffers_.find(memory);
  return found == buffers_.end() || found->second.finished();
}

bool is_pinned(const void* data, std::size_t bytes) {
  return PinnedPool::instance().find(data, bytes) != nullptr;
}

void mark_pinned_copied(const void* data, const Stream& stream) {
  if (auto* block = PinnedPool::instance().find(data, 0)) block->mark_copied(stream);
}

}  // namespace qtrain::cuda
