// Copies between the host and a GPU.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>

#include "engine/backend/cuda/runtime.h"
#include "engine/core/device.h"

namespace qtrain::cuda {

// Host memory is free for reuse when to_device() returns, unless it is a PinnedBuffer (Backend::allocate_host
// gives such), which knows itself when it is. The host doesn't wait: pageable memory goes into a pinned
// buffer first.
//
// Large copies overlap with the work that is queued on the compute stream. They can't go to their destination
// at once, because the allocator may have given it memory that work queued earlier still uses. So the copy
// stream fills one of two buffers on the device, and the compute stream, when it gets there, copies from
// that:
//
//   copy stream      host -> staging 0     host -> staging 1     (as soon as the staging buffer was copied
//   from) compute stream   ... step k ...     staging 0 -> tensor     ... step k + 1 ...
class Transfers {
 public:
  void to_device(const Stream& compute, void* to, const void* from, std::size_t bytes);
  void to_host(const Stream& compute, void* to, const void* from,
               std::size_t bytes);  // the caller waits: host_read.h

 private:
  // Its memory is no tensor's: the copy stream writes it at other times than those at which tensors do, and
  // recorded steps write the tensors' memory whenever they run.
  struct Staging {
    struct Free {
      void operator()(std::byte* memory) const;  // waits for what uses it
    };
    std::unique_ptr<std::byte, Free> memory;
    std::size_t bytes = 0;
    CudaEvent filled;   // on the copy stream
    CudaEvent emptied;  // on the compute stream
  };
  void overlapped(const Stream& compute, void* to, const void* pinned, std::size_t bytes);

  CudaStream copies_;
  std::mutex mutex_;
  std::array<Staging, 2> staging_;
  std::size_t next_ = 0;
};

}  // namespace qtrain::cuda
