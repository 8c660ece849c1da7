// An 8-bit colour image in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace qtrain::data {

struct Size {
  int width = 0;
  int height = 0;

  friend bool operator==(const Size&, const Size&) = default;
};

// Rows from top to bottom, pixels from left to right, R, G, B interleaved: rgb.size() == width * height * 3.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;

  Size size() const { return {width, height}; }
};

}  // namespace qtrain::data
