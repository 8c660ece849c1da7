#include <cuda_runtime_api.h>

#include "engine/core/error.h"
#include "engine/kernels/device/thread.h"

namespace qtrain::device {

void check_launch(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  throw DeviceError({.where = "cuda",
                     .what = std::string("a kernel could not be launched: ") + cudaGetErrorString(status),
                     .got = kernel,
                     .expected = "",
                     .hint = ""});
}

}  // namespace qtrain::device
