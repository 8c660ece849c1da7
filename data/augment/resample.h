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
// when `flip`, to out (window.height x window.width x 3). Pixels that lie wholly outside of the crop have no
// influence, and only those that the window needs are read: the crop may reach beyond the image as long as
// they lie in it. Throws ShapeError if they don't, if the window isn't inside of `full`, or if `out` has
// another size.
void resample(const Image& image, const RealBox& crop, Size full, const Box& window, bool flip,
              std::span<std::uint8_t> out);

// The pixels that resample() reads.
Box resample_reads(const RealBox& crop, Size full, const Box& window);

}  // namespace qtrain::data
