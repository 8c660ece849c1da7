// The only door through which the host reads a device value. It waits for the device, so the training path
// must not use it; the counter lets tests prove that.
#pragma once

#include <cstdint>

#include "engine/core/tensor.h"

namespace qtrain {

// Copies a tensor's bytes to host memory, in storage order.
void host_read(const Tensor& tensor, void* destination);

// How many host reads this process has made.
std::uint64_t host_read_count();

// How often the host has waited for a device. The CPU finishes every call before it returns: nothing waits
// for it.
std::uint64_t device_synchronization_count();

// For backends, which call it whenever they wait.
void count_device_synchronization();

}  // namespace qtrain
