#include <algorithm>
#include <array>
#include <cmath>

#include "data/augment/color.h"

namespace qtrain::data {
namespace {

// A hue as Pillow turns it back into a colour: it lies in one of six sectors, at a place between 0 and 1.
struct HuePlace {
  float place;
  int sector;
};

// Of each 8-bit hue after turning.
std::array<HuePlace, 256> turned_hues(double turn) {
  std::array<HuePlace, 256> hues{};
  const auto shift = static_cast<unsigned>(static_cast<int>(turn * 255));  // towards zero; modulo 256 below
  for (unsigned h = 0; h < hues.size(); ++h) {
    const double sixths = ((h + shift) & 255U) * 6.0 / 255.0;
    const int sector = static_cast<int>(sixths);
    hues[h] = {static_cast<float>(sixths - sector), sector % 6};
  }
  return hues;
}

int round_half_up(double positive) {
  return static_cast<int>(positive + 0.5);
}

}  // namespace

void adjust_hue(const Pixels& image, double turn) {
  const std::array<HuePlace, 256> hues = turned_hues(turn);
  std::uint8_t* pixel = image.rgb.data();
  const std::size_t count = image.count();
  for (std::size_t i = 0; i < count; ++i, pixel += 3) {
    const int r = pixel[0];
    const int g = pixel[1];
    const int b = pixel[2];
    const int v = std::max(r, std::max(g, b));
    const int range = v - std::min(r, std::min(g, b));
    if (range == 0) continue;  // gray has no hue
    // The distances of the two other colours from the largest one, which names the sector.
    const auto distance = [&](int colour) {
      return static_cast<float>(v - colour) / static_cast<float>(range);
    };
    const float red = distance(r);
    const float green = distance(g);
    const float blue = distance(b);
    float sixths = 0;
    if (r == v)
      sixths = blue - green;
    else if (g == v)
      sixths = static_cast<float>(2.0 + static_cast<double>(red) - static_cast<double>(blue));
    else
      sixths = static_cast<float>(4.0 + static_cast<double>(green) - static_cast<double>(red));
    const double turns = static_cast<double>(sixths) / 6.0 + 1.0;
    const auto h = static_cast<float>(turns >= 1 ? turns - 1 : turns);
    const float saturation = static_cast<float>(range) / static_cast<float>(v);
    // Both rounded down to 8 bits, which is all that HSV keeps.
    const HuePlace hue = hues[static_cast<std::size_t>(static_cast<double>(h) * 255.0)];
    const auto s = static_cast<float>(static_cast<int>(static_cast<double>(saturation) * 255.0) / 255.0);

    const auto largest = static_cast<double>(v);
    const auto p = round_half_up(largest * (1.0 - static_cast<double>(s)));
    const auto q = round_half_up(largest * (1.0 - static_cast<double>(s * hue.place)));
    const auto t =
        round_half_up(largest * (1.0 - static_cast<double>(s) * (1.0 - static_cast<double>(hue.place))));
    // By sector: red to yellow, to green, to cyan, to blue, to magenta, to red.
    const std::array<int, 4> levels = {v, t, p, q};
    constexpr std::array<std::array<std::uint8_t, 3>, 6> order = {
        {{0, 1, 2}, {3, 0, 2}, {2, 0, 1}, {2, 3, 0}, {1, 2, 0}, {0, 2, 3}}};
    const auto& of = order[static_cast<std::size_t>(hue.sector)];
    for (std::size_t c = 0; c < 3; ++c) pixel[c] = to_byte(levels[of[c]]);
  }
}

}  // namespace qtrain::data
