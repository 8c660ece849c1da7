#include "data/augment/color.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace qtrain::data {
namespace {

std::uint8_t blend(float plain, float value, float factor) {
  return static_cast<std::uint8_t>(
      static_cast<int>(std::clamp(plain + factor * (value - plain), 0.0F, 255.0F)));
}

void blend_with_level(const Pixels& image, int level, double factor) {
  const auto plain = static_cast<float>(level);
  const auto f = static_cast<float>(factor);
  for (std::uint8_t& value : image.rgb) value = blend(plain, value, f);
}

}  // namespace

void adjust_brightness(const Pixels& image, double factor) {
  blend_with_level(image, 0, factor);
}

void adjust_contrast(const Pixels& image, double factor) {
  std::uint64_t sum = 0;
  for (std::size_t y = 0; y < image.rows(); ++y) {
    const std::uint8_t* pixel = image.row(y);
    std::uint32_t row_sum = 0;
    for (int x = 0; x < image.size.width; ++x, pixel += 3)
      row_sum += static_cast<std::uint32_t>(luma(pixel[0], pixel[1], pixel[2]));
    sum += row_sum;
  }
  const double mean = static_cast<double>(sum) / static_cast<double>(image.count());
  blend_with_level(image, static_cast<int>(std::floor(mean + 0.5)), factor);
}

void adjust_saturation(const Pixels& image, double factor) {
  const auto f = static_cast<float>(factor);
  std::uint8_t* pixel = image.rgb.data();
  const std::size_t count = image.count();
  for (std::size_t i = 0; i < count; ++i, pixel += 3) {
    const auto plain = static_cast<float>(luma(pixel[0], pixel[1], pixel[2]));
    for (int c = 0; c < 3; ++c) pixel[c] = blend(plain, pixel[c], f);
  }
}

void adjust_sharpness(const Pixels& image, double factor) {
  const auto f = static_cast<float>(factor);
  const std::size_t bytes = image.row_bytes();
  const std::span<const std::uint8_t> before = kept_copy(image);
  for (std::size_t y = 1; y + 1 < image.rows(); ++y) {
    const std::uint8_t* here = before.data() + y * bytes;
    const std::uint8_t* above = here - bytes;
    const std::uint8_t* below = here + bytes;
    std::uint8_t* out = image.row(y);
    for (std::size_t i = 3; i + 3 < bytes; ++i) {
      const int sum = above[i - 3] + above[i] + above[i + 3] + here[i - 3] + 5 * here[i] + here[i + 3] +
                      below[i - 3] + below[i] + below[i + 3];
      const int smooth = (sum + 6) / 13;  // to the nearest: no multiple of 1/13 is a half
      out[i] = blend(static_cast<float>(smooth), here[i], f);
    }
  }
}

void add_lighting(const Pixels& image, const std::array<double, 3>& strengths) {
  constexpr std::array<double, 3> eigenvalues = {0.2175, 0.0188, 0.0045};
  constexpr double components[3][3] = {// rows: R, G, B
                                       {-0.5675, 0.7192, 0.4009},
                                       {-0.5808, -0.0045, -0.8140},
                                       {-0.5836, -0.6948, 0.4203}};
  constexpr std::size_t block = 192;  // a repeated pattern of three offsets that whole vectors fit in
  std::array<std::int16_t, block> offsets{};
  for (std::size_t i = 0; i < block; ++i) {
    double sum = 0;
    for (std::size_t k = 0; k < 3; ++k) sum += components[i % 3][k] * eigenvalues[k] * strengths[k];
    offsets[i] = static_cast<std::int16_t>(std::clamp(std::nearbyint(255 * sum), -255.0, 255.0));
  }
  std::uint8_t* const all = image.rgb.data();
  std::size_t first = 0;
  for (; first + block <= image.rgb.size(); first += block)
    for (std::size_t i = 0; i < block; ++i) all[first + i] = to_byte(all[first + i] + offsets[i]);
  for (std::size_t i = 0; first + i < image.rgb.size(); ++i)
    all[first + i] = to_byte(all[first + i] + offsets[i]);
}

void ColorJitter::apply(const Pixels& image, RandomStream& random) const {
  std::array<int, 4> order = {0, 1, 2, 3};
  for (std::size_t i = 3; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  const std::array<double, 4> strengths = {brightness, contrast, saturation, hue};
  std::array<double, 4> drawn{};
  for (std::size_t k = 0; k < 4; ++k) {
    if (strengths[k] <= 0) continue;
    drawn[k] = k == 3 ? random.uniform(-hue, hue)
                      : random.uniform(std::max(0.0, 1 - strengths[k]), 1 + strengths[k]);
  }
  constexpr std::array adjust = {adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue};
  for (const int k : order) {
    const auto place = static_cast<std::size_t>(k);
    if (strengths[place] > 0) adjust[place](image, drawn[place]);
  }
}

}  // namespace qtrain::data
