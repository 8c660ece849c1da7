// Where tensors live and where work is queued.
#pragma once

#include <cstdint>
#include <string>

namespace qtrain {

enum class DeviceType : unsigned char { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;

  std::string str() const { return type == DeviceType::cpu ? "cpu" : "cuda:" + std::to_string(index); }
  friend bool operator==(const Device&, const Device&) = default;
};

// An in-order queue of work on a device. The CPU finishes every call before it returns; a GPU stream runs
// behind the host, and whoever reads its results on the host synchronizes first (see host_read.h).
struct Stream {
  Device device;
  void* native = nullptr;             // cudaStream_t on a GPU, unused on the CPU; not owned
  std::uint32_t* arrivals = nullptr;  // a zeroed device word that reductions use to find their last block, 0
                                      // again after every kernel
};

}  // namespace qtrain
