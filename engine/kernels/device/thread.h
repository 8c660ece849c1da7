// How kernels are written. A kernel is a copyable struct:
//
//   struct K {
//     static constexpr int threads = 256;    of a block
//     struct Shared { ... };                 what the threads of a block share; trivial, not initialized
//     template <class Thread> QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const;
//   };
//
// and launch(stream, blocks, kernel) runs it. The same struct runs on the host, over emulated blocks and
// threads (tests/engine/device/emulator.h), so that its indexing and its reductions are tested without a GPU.
// It may use:
//   t.block, t.blocks, t.thread   std::int64_t
//   t.sync()                      waits for all threads of the block, which all call it
//   t.arrive_last(word)           after t.sync(): true in all threads of the block that comes last of all
//   blocks;
//                                 what other blocks wrote before is visible then through t.read(). `word` is
//                                 0 before and after the kernel (Stream::arrivals).
//   t.read(place)                 a global value that another block may just have written
#pragma once

#include <cstdint>

#include "engine/core/device.h"
#include "engine/core/host_device.h"

namespace qtrain {

inline bool on_device(const Stream& stream) {
  return stream.device.type != DeviceType::cpu;
}

namespace device {

// Throws DeviceError: a kernel's launch failed, or its code was compiled for the host only.
void check_launch(const char* kernel);
[[noreturn]] void refuse_host_code();

#if defined(__CUDACC__)

struct CudaThread {
  std::int64_t block = blockIdx.x;
  std::int64_t blocks = gridDim.x;
  std::int64_t thread = threadIdx.x;

  __device__ void sync() const { __syncthreads(); }
  __device__ bool arrive_last(std::uint32_t* word) const {
    __threadfence();  // what this thread wrote comes before the arrival
    __syncthreads();
    bool last = false;
    if (thread == 0) {
      last = atomicAdd(word, 1U) == static_cast<std::uint32_t>(blocks) - 1;
      if (last) *word = 0;
    }
    last = __syncthreads_or(last ? 1 : 0) != 0;
    if (last) __threadfence();
    return last;
  }
  template <class T>
  __device__ T read(const T* place) const {
    return __ldcg(place);
  }
};

template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) run(const __grid_constant__ Kernel kernel) {
  using Shared = typename Kernel::Shared;
  __shared__ alignas(Shared) unsigned char memory[sizeof(Shared)];
  kernel(CudaThread{}, *reinterpret_cast<Shared*>(memory));
}

template <class Kernel>
void launch(const Stream& stream, std::int64_t blocks, const Kernel& kernel) {
  if (blocks <= 0) return;
  run<<<static_cast<unsigned>(blocks), Kernel::threads, 0, static_cast<cudaStream_t>(stream.native)>>>(
      kernel);
  check_launch(__PRETTY_FUNCTION__);
}

#elif defined(QTRAIN_EMULATE_KERNELS)

// Defined by the emulator.
template <class Kernel>
void launch(const Stream& stream, std::int64_t blocks, const Kernel& kernel);

#else

template <class Kernel>
void launch(const Stream&, std::int64_t, const Kernel&) {
  refuse_host_code();
}

#endif

struct NothingShared {};

}  // namespace device
}  // namespace qtrain
