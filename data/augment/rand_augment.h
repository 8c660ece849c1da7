// RandAugment (Cubuk et al. 2019) as torchvision.transforms.RandAugment does it on 8-bit images.
#pragma once

#include <array>
#include <string_view>

#include "data/augment/pixels.h"
#include "engine/core/rng.h"

namespace qtrain::data {

// In torchvision's order, as an operation is drawn by its number.
enum class Operation {
  identity,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  rotate,
  brightness,
  color,
  contrast,
  sharpness,
  posterize,
  solarize,
  autocontrast,
  equalize,
};
constexpr int operation_count = 14;

struct RandAugment {
  static constexpr int largest_magnitude = 30;  // 31 steps from nothing to the most

  int operations = 0;  // one after another on each image; 0: off
  int magnitude = 9;

  bool is_on() const { return operations > 0; }
  // Draws for each operation which one, then its sign where it has one.
  void apply(const Pixels& image, RandomStream& random) const;
};

// One of them, as strong as the magnitude says; `negative` turns those round that have a direction.
void apply_operation(const Pixels& image, Operation operation, int magnitude, bool negative);
// Whether it has two directions.
bool has_sign(Operation operation);

}  // namespace qtrain::data
