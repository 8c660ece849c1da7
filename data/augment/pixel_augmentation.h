// Everything that changes an image's pixels after it was cut out and resized, in this order: RandAugment,
// colour jitter, lighting, random erasing. What is off draws nothing.
#pragma once

#include "data/augment/color.h"
#include "data/augment/erasing.h"
#include "data/augment/pixels.h"
#include "data/augment/rand_augment.h"
#include "engine/core/rng.h"

namespace qtrain::data {

struct PixelOptions {
  RandAugment rand_augment;
  ColorJitter color_jitter;
  double lighting = 0;  // standard deviation of the three strengths; AlexNet: 0.1
  ErasingOptions erasing;

  bool any() const {
    return rand_augment.is_on() || color_jitter.is_on() || lighting > 0 || erasing.probability > 0;
  }
};

class PixelAugmentation {
 public:
  explicit PixelAugmentation(const PixelOptions& options);  // ValueError for an option out of its range
  void apply(const Pixels& image, RandomStream& random) const;

 private:
  PixelOptions options_;
  RandomErasing erasing_;
};

}  // namespace qtrain::data
