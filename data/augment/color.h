// Colours of 8-bit images, with the definitions and the integers of Pillow's ImageEnhance, which
// torchvision's transforms of such images are made of. Each blends the image with a plainer one, `plain`:
//   out = clip(plain + factor * (in - plain), 0, 255), in float32, the fraction dropped
// A factor of 1 changes nothing, 0 gives the plainer image, more than 1 goes beyond the image.
#pragma once

#include <array>

#include "data/augment/pixels.h"
#include "engine/core/rng.h"

namespace qtrain::data {

// Pillow's convert("L"), ITU-R 601-2: the weights 0.299, 0.587, 0.114 with 16 bits.
constexpr int luma(int r, int g, int b) {
  return (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
}

void adjust_brightness(const Pixels& image, double factor);  // plain: black
void adjust_contrast(const Pixels& image, double factor);    // plain: the mean of the luma, rounded
void adjust_saturation(const Pixels& image, double factor);  // plain: each pixel's luma
// plain: the image through the 3 x 3 filter (1 1 1, 1 5 1, 1 1 1) / 13, rounded; pixels at the border stay.
void adjust_sharpness(const Pixels& image, double factor);

// Turns the hue by `turn`, -0.5..0.5 of a circle, through Pillow's HSV, whose three parts have 8 bits:
//   v = max(r, g, b), s = 255 (v - min) / v, h = 255 / 6 (sector + distance within it), fractions dropped
// to which int(255 turn) is added, modulo 256. Turning by 0 changes pixels too, as HSV has fewer colours.
void adjust_hue(const Pixels& image, double turn);

// "Lighting" noise of Krizhevsky et al. 2012, with the principal components of ImageNet's colours that
// everybody uses: adds sum_k component_k * eigenvalue_k * strengths_k to every pixel, on the 0..1 scale,
// rounded to 1/255.
void add_lighting(const Pixels& image, const std::array<double, 3>& strengths);

// torchvision.transforms.ColorJitter: factors uniform in [max(0, 1 - x), 1 + x], a turn uniform in [-hue,
// hue], in random order. What is 0 is left out.
struct ColorJitter {
  double brightness = 0;
  double contrast = 0;
  double saturation = 0;
  double hue = 0;  // at most 0.5

  bool is_on() const { return brightness > 0 || contrast > 0 || saturation > 0 || hue > 0; }
  // Draws the order, then brightness, contrast, saturation, hue, without those left out.
  void apply(const Pixels& image, RandomStream& random) const;
};

}  // namespace qtrain::data
