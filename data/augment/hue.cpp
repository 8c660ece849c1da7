#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "data/augment/color.h"

namespace qtrain::data {
namespace {

constexpr std::size_t block = 64;  // pixels whose channels are taken apart, so that the arithmetic vectorises

struct Planes {
  std::array<std::int32_t, block> r, g, b;
};

// How each 8-bit hue, after turning, becomes a colour: it lies in one of six sectors, at a place from 0 to 1.
struct TurnedHues {
  std::array<float, 256> place;
  std::array<std::int32_t, 256> sector;

  explicit TurnedHues(double turn) : place{}, sector{} {
    const auto shift = static_cast<unsigned>(static_cast<int>(turn * 255));  // towards zero
    for (unsigned h = 0; h < 256; ++h) {
      const double sixths = ((h + shift) & 255U) * 6.0 / 255.0;
      const int whole = static_cast<int>(sixths);
      place[h] = static_cast<float>(sixths - whole);
      sector[h] = whole % 6;
    }
  }
};

std::int32_t round_half_up(double positive) {
  return static_cast<std::int32_t>(std::floor(positive + 0.5));
}

// float32 and double as in Pillow, whose bytes these are for every colour. Without branches: in a picture
// they would be taken as often as not. Gray pixels have saturation 0 and so become themselves.
void turn(Planes& pixels, const TurnedHues& hues) {
  for (std::size_t i = 0; i < block; ++i) {
    const std::int32_t r = pixels.r[i];
    const std::int32_t g = pixels.g[i];
    const std::int32_t b = pixels.b[i];
    const std::int32_t v = std::max(r, std::max(g, b));
    const std::int32_t range = v - std::min(r, std::min(g, b));
    // The distances of the two smaller colours from the largest one, which names the sector.
    const auto width = static_cast<float>(std::max(range, 1));
    const float red = static_cast<float>(v - r) / width;
    const float green = static_cast<float>(v - g) / width;
    const float blue = static_cast<float>(v - b) / width;
    const auto from_green = static_cast<float>(2.0 + static_cast<double>(red) - static_cast<double>(blue));
    const auto from_blue = static_cast<float>(4.0 + static_cast<double>(green) - static_cast<double>(red));
    const float others = g == v ? from_green : from_blue;
    const float sixths = r == v ? blue - green : others;
    const double turns = static_cast<double>(sixths) / 6.0 + 1.0;
    const auto h = static_cast<float>(turns >= 1 ? turns - 1 : turns);
    const float saturation = static_cast<float>(range) / static_cast<float>(std::max(v, 1));
    // Both rounded down to 8 bits, which is all that HSV keeps.
    const auto h8 = static_cast<std::int32_t>(static_cast<double>(h) * 255.0);
    const auto s8 = static_cast<std::int32_t>(static_cast<double>(saturation) * 255.0);

    const std::int32_t sector = hues.sector[static_cast<std::size_t>(h8)];
    const float place = hues.place[static_cast<std::size_t>(h8)];
    const auto s = static_cast<float>(s8 / 255.0);
    const auto largest = static_cast<double>(v);
    const auto within = static_cast<double>(place);
    // The smallest colour, and the middle one where it falls and where it rises within the sector.
    const std::int32_t low = round_half_up(largest * (1.0 - static_cast<double>(s)));
    const std::int32_t falls = round_half_up(largest * (1.0 - static_cast<double>(s * place)));
    const std::int32_t rises = round_half_up(largest * (1.0 - static_cast<double>(s) * (1.0 - within)));
    // From red to yellow (0), to green (1), to cyan (2), to blue (3), to magenta (4), to red (5).
    const auto level = [&](int first_largest) {
      const std::int32_t from = sector >= first_largest ? sector - first_largest : sector + 6 - first_largest;
      const std::int32_t upper = from == 2 ? falls : (from == 5 ? rises : low);
      return from < 2 ? v : upper;
    };
    pixels.r[i] = level(5);
    pixels.g[i] = level(1);
    pixels.b[i] = level(3);
  }
}

}  // namespace

void adjust_hue(const Pixels& image, double turn_by) {
  const TurnedHues hues(turn_by);
  Planes planes{};
  for (std::size_t first = 0; first < image.count(); first += block) {
    std::uint8_t* const pixels = image.rgb.data() + 3 * first;
    const std::size_t count = std::min(block, image.count() - first);
    for (std::size_t i = 0; i < count; ++i) {
      planes.r[i] = pixels[3 * i];
      planes.g[i] = pixels[3 * i + 1];
      planes.b[i] = pixels[3 * i + 2];
    }
    turn(planes, hues);
    for (std::size_t i = 0; i < count; ++i) {
      pixels[3 * i] = static_cast<std::uint8_t>(planes.r[i]);
      pixels[3 * i + 1] = static_cast<std::uint8_t>(planes.g[i]);
      pixels[3 * i + 2] = static_cast<std::uint8_t>(planes.b[i]);
    }
  }
}

}  // namespace qtrain::data
