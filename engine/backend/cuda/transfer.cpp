#include "engine/backend/cuda/transfer.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <optional>

#include "engine/backend/cuda/graph.h"
#include "engine/backend/cuda/pinned.h"
#include "engine/kernels/parallel.h"

namespace qtrain::cuda {
namespace {

// Smaller copies are over sooner than the bookkeeping pays: 2^20 bytes at 50 GB/s, about what a PCIe 5 link
// carries, are 21 us.
constexpr std::size_t worth_overlapping = std::size_t{1} << 20;

void queue_copy(cudaStream_t stream, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, stream);
  if (status != cudaSuccess) check(status, "cudaMemcpyAsync", fmt::format("{} bytes", bytes));
}

PinnedBuffer pinned_copy(const void* from, std::size_t bytes) {
  PinnedBuffer buffer(bytes);
  parallel_for(
      static_cast<std::int64_t>(bytes), std::int64_t{1} << 20, [&](std::int64_t begin, std::int64_t end) {
        std::memcpy(static_cast<std::byte*>(buffer.data()) + begin,
                    static_cast<const std::byte*>(from) + begin, static_cast<std::size_t>(end - begin));
      });
  return buffer;
}

}  // namespace

void Transfers::to_device(const Stream& compute, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  if (CudaGraphCapture* recording = CudaGraphCapture::current()) {
    // The value of today becomes a constant of the graph.
    const PinnedBuffer& constant = recording->keep(pinned_copy(from, bytes));
    queue_copy(native(compute), to, constant.data(), bytes, cudaMemcpyHostToDevice);
    return;
  }
  std::optional<PinnedBuffer> staged;  // goes back to the pool, which waits for the copy
  if (!is_pinned(from, bytes)) from = staged.emplace(pinned_copy(from, bytes)).data();
  if (bytes >= worth_overlapping) {
    overlapped(compute, to, from, bytes);
  } else {
    queue_copy(native(compute), to, from, bytes, cudaMemcpyHostToDevice);
    mark_pinned_copied(from, compute);
  }
}

void Transfers::Staging::Free::operator()(std::byte* memory) const {
  cudaFree(memory);
}

void Transfers::overlapped(const Stream& compute, void* to, const void* pinned, std::size_t bytes) {
  const std::scoped_lock lock(mutex_);
  Staging& staging = staging_[next_];
  next_ = (next_ + 1) % staging_.size();
  if (staging.bytes < bytes) {
    staging.memory.reset();
    staging.bytes = 0;
    const std::size_t wanted = std::bit_ceil(bytes);
    void* memory = nullptr;
    check(cudaMalloc(&memory, wanted), "cudaMalloc", fmt::format("{} bytes", wanted));
    staging.memory.reset(static_cast<std::byte*>(memory));
    staging.bytes = wanted;
  }
  void* const middle = staging.memory.get();
  staging.emptied.hold_back(copies_.get());
  queue_copy(copies_.get(), middle, pinned, bytes, cudaMemcpyHostToDevice);
  staging.filled.record(copies_.get());
  mark_pinned_copied(pinned, {compute.device, copies_.get()});
  staging.filled.hold_back(native(compute));
  queue_copy(native(compute), to, middle, bytes, cudaMemcpyDeviceToDevice);
  staging.emptied.record(native(compute));
}

// To pageable memory the runtime copies through pinned memory of its own, and returns when all has arrived.
// The caller's wait makes that certain for every kind of memory, and counted.
void Transfers::to_host(const Stream& compute, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  refuse_while_recording("reading a device value on the host");
  queue_copy(native(compute), to, from, bytes, cudaMemcpyDeviceToHost);
}

}  // namespace qtrain::cuda
