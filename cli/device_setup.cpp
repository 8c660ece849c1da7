#include "cli/device_setup.h"

#include "engine/backend/backend.h"
#include "engine/backend/settings.h"
#include "engine/core/error.h"

namespace qtrain::cli {

Device choose_device(const std::string& name) {
  if (name == "cpu") return {};
  const Device gpu{DeviceType::cuda, 0};
  if (name == "auto") return available_devices().size() > 1 ? gpu : Device{};
  if (const std::string reason = gpu_absence(); !reason.empty())
    throw DeviceError({.where = "--device",
                       .what = "no GPU to compute on: " + reason,
                       .got = name,
                       .expected = "auto or cpu",
                       .hint = ""});
  return gpu;
}

Device set_up_device(const TrainOptions& options) {
  const Device device = choose_device(options.device);
  if (options.precision == "tf32" && device.type == DeviceType::cpu)
    throw DeviceError({.where = "--precision",
                       .what = "tf32 is an arithmetic of GPUs",
                       .got = "tf32 on the CPU",
                       .expected = "fp32 or bf16",
                       .hint = ""});
  configure(device, {.math = options.precision == "tf32" ? MathMode::tf32 : MathMode::fp32,
                     .autotune = options.autotune});
  return device;
}

}  // namespace qtrain::cli
