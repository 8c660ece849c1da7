// --device, and what else is chosen about the machine's arithmetic.
#pragma once

#include <string>

#include "cli/train_options.h"
#include "engine/core/device.h"

namespace qtrain::cli {

// "auto" is the first GPU, or the CPU where there is none. DeviceError for a device that isn't there, with
// the reason.
Device choose_device(const std::string& name);

// The same for a run, whose precision and choice of convolution plans it sets.
Device set_up_device(const TrainOptions& options);

}  // namespace qtrain::cli
