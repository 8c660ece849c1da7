// Tone curves of 8-bit images: every value of a channel becomes another one, by a table. The definitions are
// those of Pillow's ImageOps.
#pragma once

#include "data/augment/pixels.h"

namespace qtrain::data {

// Keeps the upper `bits` of 8.
void posterize(const Pixels& image, int bits);

// Inverts values from `threshold` on: v becomes 255 - v.
void solarize(const Pixels& image, double threshold);

// Stretches each channel so that its smallest value becomes 0 and its largest 255. A channel of one value
// stays.
void autocontrast(const Pixels& image);

// Makes the values of each channel equally frequent, as far as a table can: with the histogram n_i of the
// channel and step = (all pixels - those of the largest value) / 255 in integers, v becomes
// (step / 2 + n_0 + ... + n_(v-1)) / step, at most 255. A channel of one value, or a step of 0, stays.
void equalize(const Pixels& image);

}  // namespace qtrain::data
