// Pictures with the statistics of photographs, for measurements of the loader where there is no ImageNet.
#pragma once

#include <cstdint>

#include "data/image.h"

namespace qtrain::bench {

// Photograph number `index`: textures whose amplitude falls as 1/frequency, a gradient of light, shapes with
// sharp edges, and noise, which `detail` multiplies. The same on every machine.
data::Image photograph(data::Size size, double detail, std::uint64_t index);

}  // namespace qtrain::bench
