// Random erasing (Zhong et al. 2017): a rectangle of the image loses its content.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "data/augment/pixels.h"
#include "engine/core/rng.h"

namespace qtrain::data {

enum class ErasingMode {
  level,  // one colour
  noise   // every value of its own, from a normal distribution: timm's `pixel`
};

struct ErasingOptions {
  double probability = 0;  // that an image loses one; 0: off
  double area_low = 0.02;  // share of the image
  double area_high = 0.33;
  double ratio_low = 0.3;  // height / width
  double ratio_high = 3.3;
  ErasingMode mode = ErasingMode::level;
  // R, G, B on the 0..255 scale. With the mean and the deviation of the normalization, erased pixels are 0,
  // or normal with deviation 1, in what the network sees.
  std::array<double, 3> mean = {0, 0, 0};
  std::array<double, 3> deviation = {0, 0, 0};
};

// The rectangle: up to ten draws of an area (uniform) and a ratio (log-uniform) until one is smaller than the
// image in both directions, then its place; nothing if none is.
std::optional<Box> erased_box(Size image, const ErasingOptions& options, RandomStream& random);

class RandomErasing {
 public:
  explicit RandomErasing(const ErasingOptions& options);  // ValueError for an option out of its range

  bool is_on() const { return options_.probability > 0; }
  // Draws whether, then the box, then the noise.
  void apply(const Pixels& image, RandomStream& random) const;

 private:
  static constexpr unsigned noise_bits = 12;

  ErasingOptions options_;
  std::array<std::uint8_t, 3> level_{};
  // For each channel 2^12 equally likely values, in increasing order, of the normal distribution rounded and
  // clipped to 0..255: an index of 12 random bits draws from it.
  std::vector<std::uint8_t> noise_;
};

}  // namespace qtrain::data
