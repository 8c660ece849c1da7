#include "data/augment/erasing.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "data/augment/ranges.h"

namespace qtrain::data {
namespace {

std::uint8_t level_of(double mean) {
  return to_byte(static_cast<int>(std::lround(mean)));
}

// The probability of a normal value below x.
double normal_below(double x) {
  return 0.5 * std::erfc(-x / std::numbers::sqrt2);
}

}  // namespace

std::optional<Box> erased_box(Size image, const ErasingOptions& o, RandomStream& random) {
  const double area = static_cast<double>(image.width) * image.height;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * random.uniform(o.area_low, o.area_high);
    const double ratio = std::exp(random.uniform(std::log(o.ratio_low), std::log(o.ratio_high)));
    const int height = round_even(std::sqrt(target * ratio));
    const int width = round_even(std::sqrt(target / ratio));
    if (height >= image.height || width >= image.width) continue;
    const int top = draw_below(random, image.height - height + 1);
    const int left = draw_below(random, image.width - width + 1);
    return Box{left, top, width, height};
  }
  return std::nullopt;
}

RandomErasing::RandomErasing(const ErasingOptions& o) : options_(o) {
  require_in_range(o.probability >= 0 && o.probability <= 1, "erasing probability", o.probability, "0 to 1");
  require_in_range(o.area_low > 0 && o.area_low <= o.area_high && o.area_high <= 1, "erased area", o.area_low,
                   "above 0, at most the upper bound, which is at most 1");
  require_in_range(o.ratio_low > 0 && o.ratio_low <= o.ratio_high && std::isfinite(o.ratio_high),
                   "erased aspect ratio", o.ratio_low, "above 0, at most the upper bound");
  for (std::size_t c = 0; c < 3; ++c) level_[c] = level_of(o.mean[c]);
  if (!is_on() || o.mode == ErasingMode::level) return;
  constexpr std::size_t values = 1U << noise_bits;
  noise_.resize(3 * values);
  for (std::size_t c = 0; c < 3; ++c) {
    require_in_range(o.deviation[c] > 0 && std::isfinite(o.deviation[c]), "deviation of erasing noise",
                     o.deviation[c], "above 0");
    int value = 0;
    for (std::size_t i = 0; i < values; ++i) {
      const double quantile = (static_cast<double>(i) + 0.5) / static_cast<double>(values);
      while (value < 255 && normal_below((value + 0.5 - o.mean[c]) / o.deviation[c]) < quantile) ++value;
      noise_[c * values + i] = static_cast<std::uint8_t>(value);
    }
  }
}

void RandomErasing::apply(const Pixels& image, RandomStream& random) const {
  if (!random.bernoulli(options_.probability)) return;
  const std::optional<Box> box = erased_box(image.size, options_, random);
  if (!box) return;
  const auto width = static_cast<std::size_t>(box->width);
  for (int y = box->top; y < box->top + box->height; ++y) {
    std::uint8_t* pixel =
        image.row(static_cast<std::size_t>(y)) + std::size_t{3} * static_cast<std::size_t>(box->left);
    for (std::size_t x = 0; x < width; ++x, pixel += 3) {
      if (options_.mode == ErasingMode::level) {
        std::copy(level_.begin(), level_.end(), pixel);
        continue;
      }
      const std::uint64_t upper = random.next();
      const std::uint64_t bits = upper << 32 | random.next();  // 36 of them are used
      constexpr std::uint64_t values = 1U << noise_bits;
      for (std::size_t c = 0; c < 3; ++c) pixel[c] = noise_[c * values + (bits >> (c * noise_bits)) % values];
    }
  }
}

}  // namespace qtrain::data
