#include "data/augment/geometric.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

namespace qtrain::data {
namespace {

constexpr int fraction_bits = 16;

std::int32_t fixed(double value) {
  return static_cast<std::int32_t>(std::floor(value * (1 << fraction_bits) + 0.5));
}

}  // namespace

AffineMatrix shear_x(double slope) {
  return {1, slope, 0, 0, 1, 0};
}

AffineMatrix shear_y(double slope) {
  return {1, 0, 0, slope, 1, 0};
}

AffineMatrix translate(int x, int y) {
  return {1, 0, static_cast<double>(-x), 0, 1, static_cast<double>(-y)};
}

AffineMatrix rotate(double degrees, Size size) {
  const double angle = -degrees * std::numbers::pi / 180;
  const double c = std::cos(angle);
  const double s = std::sin(angle);
  const double x = size.width / 2.0;
  const double y = size.height / 2.0;
  return {c, s, x - c * x - s * y, -s, c, y + s * x - c * y};
}

void move(const Pixels& image, const AffineMatrix& m) {
  const std::span<const std::uint8_t> before = kept_copy(image);
  const std::int32_t across_x = fixed(m[0]);
  const std::int32_t down_x = fixed(m[1]);
  const std::int32_t across_y = fixed(m[3]);
  const std::int32_t down_y = fixed(m[4]);
  std::int32_t row_x = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5);
  std::int32_t row_y = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
  const auto width = static_cast<std::uint32_t>(image.size.width);
  const auto height = static_cast<std::uint32_t>(image.size.height);
  std::uint8_t* out = image.rgb.data();
  for (std::uint32_t y = 0; y < height; ++y, row_x += down_x, row_y += down_y) {
    std::int32_t at_x = row_x;
    std::int32_t at_y = row_y;
    for (std::uint32_t x = 0; x < width; ++x, out += 3, at_x += across_x, at_y += across_y) {
      const auto from_x = static_cast<std::uint32_t>(at_x >> fraction_bits);  // huge where negative
      const auto from_y = static_cast<std::uint32_t>(at_y >> fraction_bits);
      if (from_x < width && from_y < height)
        std::memcpy(out, before.data() + 3 * (std::size_t{from_y} * width + from_x), 3);
      else
        std::memset(out, 0, 3);
    }
  }
}

void flip_rows(const Pixels& image) {
  for (std::size_t y = 0; y < image.rows() / 2; ++y)
    std::swap_ranges(image.row(y), image.row(y) + image.row_bytes(), image.row(image.rows() - 1 - y));
}

}  // namespace qtrain::data
