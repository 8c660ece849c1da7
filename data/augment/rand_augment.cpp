#include "data/augment/rand_augment.h"

#include <cmath>

#include "data/augment/color.h"
#include "data/augment/geometric.h"
#include "data/augment/tone.h"

namespace qtrain::data {

bool has_sign(Operation operation) {
  return operation >= Operation::shear_x && operation <= Operation::sharpness;
}

void apply_operation(const Pixels& image, Operation operation, int magnitude, bool negative) {
  // The operations' strongest forms: slope, share of the side, degrees, distance of a factor from 1.
  constexpr double slope = 0.3;
  constexpr double distance = 150.0 / 331.0;
  constexpr double angle = 30;
  constexpr double factor = 0.9;
  const double share = static_cast<double>(magnitude) / RandAugment::largest_magnitude;
  const double directed = negative ? -share : share;
  switch (operation) {
    case Operation::identity:
      return;
    case Operation::shear_x:
      return move(image, shear_x(slope * directed));
    case Operation::shear_y:
      return move(image, shear_y(slope * directed));
    case Operation::translate_x:
      return move(image, translate(static_cast<int>(distance * image.size.width * directed), 0));
    case Operation::translate_y:
      return move(image, translate(0, static_cast<int>(distance * image.size.height * directed)));
    case Operation::rotate:
      return move(image, rotate(angle * directed, image.size));
    case Operation::brightness:
      return adjust_brightness(image, 1 + factor * directed);
    case Operation::color:
      return adjust_saturation(image, 1 + factor * directed);
    case Operation::contrast:
      return adjust_contrast(image, 1 + factor * directed);
    case Operation::sharpness:
      return adjust_sharpness(image, 1 + factor * directed);
    case Operation::posterize:  // to 4 bits; halves to even
      return posterize(image, 8 - static_cast<int>(std::nearbyint(share * 4)));
    case Operation::solarize:
      return solarize(image, 255 - 255 * share);
    case Operation::autocontrast:
      return autocontrast(image);
    case Operation::equalize:
      return equalize(image);
  }
}

void RandAugment::apply(const Pixels& image, RandomStream& random) const {
  for (int i = 0; i < operations; ++i) {
    const auto operation = static_cast<Operation>(random.below(operation_count));
    const bool negative = has_sign(operation) && random.below(2) == 1;
    apply_operation(image, operation, magnitude, negative);
  }
}

}  // namespace qtrain::data
