// Movements of 8-bit images within their frame: each pixel of the result is the nearest one of the image, and
// black where that would be outside. As Pillow's transform(AFFINE, NEAREST).
#pragma once

#include <array>

#include "data/augment/pixels.h"

namespace qtrain::data {

// Where a pixel of the result comes from: with the centre of the pixel at (x + 1/2, y + 1/2),
//   x' = m0 (x + 1/2) + m1 (y + 1/2) + m2,  y' = m3 (x + 1/2) + m4 (y + 1/2) + m5
// rounded down, in 16.16 fixed point. Coordinates stay below 16384 for images of at most 8192 pixels a side.
using AffineMatrix = std::array<double, 6>;

AffineMatrix shear_x(double slope);              // x' = x + slope y
AffineMatrix shear_y(double slope);              // y' = y + slope x
AffineMatrix translate(int x, int y);            // to the right, down
AffineMatrix rotate(double degrees, Size size);  // about the centre, counterclockwise

void move(const Pixels& image, const AffineMatrix& matrix);

void flip_rows(const Pixels& image);  // top and bottom change places

}  // namespace qtrain::data
