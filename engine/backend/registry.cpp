// Which backends this build and this machine have. Where the driver offers no GPU, a build with CUDA works
// like one without.
#include <fmt/format.h>

#include <new>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/settings.h"
#include "engine/core/error.h"
#if defined(QTRAIN_CUDA)  // the build's word that engine/backend/cuda is compiled
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/device_info.h"
#endif

namespace qtrain {
namespace {

[[noreturn]] void refuse(Device device, const std::string& reason, const std::string& expected) {
  throw DeviceError({.where = "device",
                     .what = "not available: " + reason,
                     .got = device.str(),
                     .expected = expected,
                     .hint = ""});
}

#if defined(QTRAIN_CUDA)
struct Gpus {
  static int count() { return cuda::device_count(); }
  static std::string absence() { return "the CUDA driver offers no GPU: " + cuda::device_absence(); }
  static Backend& backend(int index) { return cuda::backend(index); }
  static std::string describe(int index) { return cuda::describe(cuda::device_info(index)); }
  static void configure(int index, const DeviceSettings& s) { cuda::backend(index).configure(s); }
};
#else
struct Gpus {
  static int count() { return 0; }
  static std::string absence() { return "this build is without CUDA"; }
  static Backend& backend(int index) { refuse({DeviceType::cuda, index}, absence(), "cpu"); }
  static std::string describe(int) { return ""; }
  static void configure(int, const DeviceSettings&) {}
};
#endif

// The number of the GPU that a device other than the CPU is; what this machine doesn't have is refused.
int gpu_index(Device device) {
  if (device.type == DeviceType::cuda && device.index >= 0 && device.index < Gpus::count())
    return device.index;
  std::string present = "cpu";
  for (int i = 0; i < Gpus::count(); ++i) present += ", " + Device{DeviceType::cuda, i}.str();
  const bool no_gpu = device.type == DeviceType::cuda && Gpus::count() == 0;
  refuse(device, no_gpu ? Gpus::absence() : "this machine has no such device", present);
}

}  // namespace

void* Backend::allocate_host(std::size_t bytes) {
  return ::operator new(bytes);
}

void Backend::release_host(void* memory) noexcept {
  ::operator delete(memory);
}

bool Backend::is_host_idle(const void* /*memory*/) const {
  return true;
}

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
  return Gpus::backend(gpu_index(device));
}

std::vector<Device> available_devices() {
  std::vector<Device> devices{Device{}};
  for (int i = 0; i < Gpus::count(); ++i) devices.push_back({DeviceType::cuda, i});
  return devices;
}

std::string describe(Device device) {
  if (device == Device{}) return device.str();
  const int index = gpu_index(device);
  return fmt::format("{}, {}", device.str(), Gpus::describe(index));
}

std::string gpu_absence() {
  return Gpus::count() == 0 ? Gpus::absence() : "";
}

void configure(Device device, const DeviceSettings& settings) {
  if (device == Device{}) return;
  Gpus::configure(gpu_index(device), settings);
}

}  // namespace qtrain
