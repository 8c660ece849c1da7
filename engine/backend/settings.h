// What a user may choose about a device's arithmetic.
#pragma once

#include "engine/core/device.h"

namespace qtrain {

enum class MathMode {
  fp32,  // products of float32 values are products of all their bits
  tf32,  // a GPU's convolutions and matrix products may round float32 inputs to 10 bits of mantissa
};

struct DeviceSettings {
  MathMode math = MathMode::fp32;
  // Measure the implementations of a convolution the first time that its sizes occur, and keep the fastest.
  // The choice then depends on measured times, so that two runs may differ in their last bits.
  bool autotune = false;
};

// Holds for the work that is queued from now on. The CPU has one arithmetic: nothing changes there.
void configure(Device device, const DeviceSettings& settings);

}  // namespace qtrain
