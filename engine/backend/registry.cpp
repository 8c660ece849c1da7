// Which backends this build and this machine have.
#include "engine/backend/backend.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/core/error.h"

namespace qtrain {

std::unique_ptr<GraphRecording> Backend::record_graph(const Stream& stream) {
  throw DeviceError({.where = "graph",
                     .what = "this device can't record work",
                     .got = stream.device.str(),
                     .expected = "",
                     .hint = "ask has_graphs() first"});
}

Backend& backend(Device device) {
  // Never destroyed: tensors held by other static objects must find it whenever they go.
  static CpuBackend& cpu = *new CpuBackend();  // NOLINT(cppcoreguidelines-owning-memory)
  if (device == cpu.device()) return cpu;
  throw DeviceError({.where = "device",
                     .what = "not available in this build or on this machine",
                     .got = device.str(),
                     .expected = "cpu",
                     .hint = ""});
}

std::vector<Device> available_devices() {
  return {Device{DeviceType::cpu, 0}};
}

}  // namespace qtrain
