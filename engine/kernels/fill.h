// Constant tensors, made where they live: nothing is copied from the host, which a GPU would wait for.
#pragma once

#include <cstdint>

#include "engine/core/device.h"

namespace qtrain {

// to[i] = value for i < n.
void fill(const Stream& stream, float* to, std::int64_t n, float value);

}  // namespace qtrain
