#include "engine/backend/cuda/device_info.h"

#include <fmt/format.h>

#include "engine/backend/cuda/runtime.h"

namespace qtrain::cuda {
namespace {

struct Survey {
  int count = 0;
  std::string absence;
};

// Every failure means that there is nothing to use: no driver library, a driver older than this build's
// runtime, no device, or none that this process may see.
Survey survey() {
  Survey found;
  const cudaError_t status = cudaGetDeviceCount(&found.count);
  if (status == cudaSuccess && found.count > 0) return found;
  cudaGetLastError();  // it has been dealt with
  found.count = 0;
  found.absence = status == cudaSuccess
                      ? "no device"
                      : fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
  return found;
}

const Survey& surveyed() {
  static const Survey once = survey();
  return once;
}

}  // namespace

int device_count() {
  return surveyed().count;
}

const std::string& device_absence() {
  return surveyed().absence;
}

DeviceInfo device_info(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties",
        fmt::format("cuda:{}", index));
  return {.name = static_cast<const char*>(properties.name),
          .major = properties.major,
          .minor = properties.minor,
          .memory_bytes = properties.totalGlobalMem,
          .multiprocessors = properties.multiProcessorCount};
}

std::string describe(const DeviceInfo& info) {
  return fmt::format("{}, {} GiB, compute {}.{}", info.name, info.memory_bytes >> 30, info.major, info.minor);
}

}  // namespace qtrain::cuda
