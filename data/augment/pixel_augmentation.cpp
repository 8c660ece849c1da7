#include "data/augment/pixel_augmentation.h"

#include "data/augment/ranges.h"

namespace qtrain::data {

PixelAugmentation::PixelAugmentation(const PixelOptions& options)
    : options_(options), erasing_(options.erasing) {
  const RandAugment& r = options.rand_augment;
  require_in_range(r.operations >= 0 && r.operations <= 100, "RandAugment operations", r.operations,
                   "0 to 100");
  require_in_range(r.magnitude >= 0 && r.magnitude <= RandAugment::largest_magnitude, "RandAugment magnitude",
                   r.magnitude, "0 to 30");
  const ColorJitter& j = options.color_jitter;
  for (const double factor : {j.brightness, j.contrast, j.saturation})
    require_in_range(factor >= 0 && factor <= 1000, "color jitter", factor, "0 to 1000");
  require_in_range(j.hue >= 0 && j.hue <= 0.5, "color jitter's hue", j.hue, "0 to 0.5");
  require_in_range(options.lighting >= 0 && options.lighting <= 1000, "lighting", options.lighting,
                   "0 to 1000");
}

void PixelAugmentation::apply(const Pixels& image, RandomStream& random) const {
  if (options_.rand_augment.is_on()) options_.rand_augment.apply(image, random);
  if (options_.color_jitter.is_on()) options_.color_jitter.apply(image, random);
  if (options_.lighting > 0) {
    std::array<double, 3> strengths{};
    for (double& strength : strengths) strength = options_.lighting * random.normal();
    add_lighting(image, strengths);
  }
  if (erasing_.is_on()) erasing_.apply(image, random);
}

}  // namespace qtrain::data
