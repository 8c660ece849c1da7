// What CudaBackend consists of.
#pragma once

#include <mutex>
#include <optional>

#include "engine/backend/cuda/convolution_choice.h"
#include "engine/backend/cuda/cublaslt.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/pinned.h"
#include "engine/backend/cuda/transfer.h"

namespace qtrain {

struct CudaBackend::Parts {
  explicit Parts(int device);

  int index;
  cuda::CudaStream compute;
  CachingAllocator allocator;
  std::uint32_t* arrivals;  // see Stream
  cuda::Transfers transfers;
  cuda::PinnedBuffers host_memory;

  // The libraries take memory and time to start; programs that don't convolve needn't pay.
  cuda::ConvolutionChoices& convolutions();
  cuda::MatrixProducts& products();

 private:
  std::once_flag convolutions_once_, products_once_;
  std::optional<cuda::ConvolutionChoices> convolutions_;
  std::optional<cuda::MatrixProducts> products_;
};

}  // namespace qtrain
