#include "data/augment/rand_augment.h"

#include <cmath>

#include "data/augment/color.h"
#include "data/augment/geometric.h"
#include "data/augment/tone.h"

namespace qtrain::data {
namespace {

// torch.linspace(low, high, 31)[magnitude] in its float32: from both ends to the middle. Which of two bytes
// comes out can depend on the last bit.
double step_of(double low, double high, int magnitude) {
  constexpr int last = RandAugment::largest_magnitude;
  const auto from = static_cast<float>(low);
  const auto to = static_cast<float>(high);
  const float step = (to - from) / last;
  const float from_low = from + step * static_cast<float>(magnitude);
  const float from_high = to - step * static_cast<float>(last - magnitude);
  return static_cast<double>(magnitude < (last + 1) / 2 ? from_low : from_high);
}

}  // namespace

bool has_sign(Operation operation) {
  return operation >= Operation::shear_x && operation <= Operation::sharpness;
}

void apply_operation(const Pixels& image, Operation operation, int magnitude, bool negative) {
  // The operations' strongest forms: slope, share of the side, degrees, distance of a factor from 1.
  constexpr double slope = 0.3;
  constexpr double distance = 150.0 / 331.0;
  constexpr double angle = 30;
  constexpr double factor = 0.9;
  const auto directed = [&](double most) {
    const double value = step_of(0, most, magnitude);
    return negative ? -value : value;
  };
  switch (operation) {
    case Operation::identity:
      return;
    case Operation::shear_x:
      return move(image, shear_x(directed(slope)));
    case Operation::shear_y:
      return move(image, shear_y(directed(slope)));
    case Operation::translate_x:
      return move(image, translate(static_cast<int>(directed(distance * image.size.width)), 0));
    case Operation::translate_y:
      return move(image, translate(0, static_cast<int>(directed(distance * image.size.height))));
    case Operation::rotate:
      return move(image, rotate(directed(angle), image.size));
    case Operation::brightness:
      return adjust_brightness(image, 1 + directed(factor));
    case Operation::color:
      return adjust_saturation(image, 1 + directed(factor));
    case Operation::contrast:
      return adjust_contrast(image, 1 + directed(factor));
    case Operation::sharpness:
      return adjust_sharpness(image, 1 + directed(factor));
    case Operation::posterize:  // to 4 bits; halves to even
      return posterize(image, 8 - static_cast<int>(std::nearbyint(magnitude / 7.5)));
    case Operation::solarize:
      return solarize(image, step_of(255, 0, magnitude));
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
