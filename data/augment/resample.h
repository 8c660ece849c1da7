// Antialiased bilinear resizing of 8-bit RGB images, with the definition and the very integers of Pillow's
// resize(BILINEAR) (which torchvision's antialias=True follows): a triangle filter whose half-width is
// max(1, source size / result size) source pixels, applied first along rows, then along columns, its weights
// normalized and rounded to 22 bits, the sums rounded to 8 bits after each pass.
#pragma once

#include <cstdint>
#include <span>

#include "data/image.h"

namespace qtrain::data {

// Cuts `crop` out of the image, resizes it to `full`, and writes the part `window` of the result, mirrored
// when `flip`, to out (window.height x window.width x 3). Pixels outside of the crop have no influence, and
// only those that the window needs are read. The boxes must lie inside the image and inside `full`; throws
// ShapeError otherwise.
void resample(const Image& image, const Box& crop, Size full, const Box& window, bool flip,
              std::span<std::uint8_t> out);

}  // namespace qtrain::data
