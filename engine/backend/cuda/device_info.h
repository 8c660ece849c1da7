// The GPUs of this machine. No vendor header is needed to ask.
#pragma once

#include <cstddef>
#include <string>

namespace qtrain::cuda {

// GPUs that the driver offers; 0 without a driver, with one too old for this build, and without a GPU. Asked
// once.
int device_count();

// Why device_count() is 0, in the driver's words; "" where it isn't.
const std::string& device_absence();

struct DeviceInfo {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  std::size_t memory_bytes = 0;
  int multiprocessors = 0;
};
DeviceInfo device_info(int index);

// "NVIDIA H200, 139 GiB, compute 9.0"
std::string describe(const DeviceInfo& info);

}  // namespace qtrain::cuda
