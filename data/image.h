// An 8-bit colour image in memory, and rectangles of it.
#pragma once

#include <cstdint>
#include <vector>

namespace qtrain::data {

struct Size {
  int width = 0;
  int height = 0;

  friend bool operator==(const Size&, const Size&) = default;
};

// A rectangle of pixels; left and top may be outside of an image only where a function says so.
struct Box {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;

  friend bool operator==(const Box&, const Box&) = default;
};

// Whether a box has pixels and all of them are in an image of that size.
constexpr bool inside(const Box& box, Size size) {
  return box.left >= 0 && box.top >= 0 && box.width >= 1 && box.height >= 1 &&
         box.left <= size.width - box.width && box.top <= size.height - box.height;
}

// A rectangle whose sides need not lie between two pixels. Pixel i covers [i, i + 1].
struct RealBox {
  double left = 0;
  double top = 0;
  double width = 0;
  double height = 0;
};

// Rows from top to bottom, pixels from left to right, R, G, B interleaved: rgb.size() == width * height * 3.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;

  Size size() const { return {width, height}; }
};

}  // namespace qtrain::data
