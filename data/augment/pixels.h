// What the augmentations work on: an image of the network's size in its place of the batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "data/image.h"

namespace qtrain::data {

// Rows from top to bottom, R, G, B interleaved; rgb.size() == width * height * 3. A view: what it shows is
// changed in place.
struct Pixels {
  std::span<std::uint8_t> rgb;
  Size size;

  std::size_t row_bytes() const { return std::size_t{3} * static_cast<std::size_t>(size.width); }
  std::size_t rows() const { return static_cast<std::size_t>(size.height); }
  std::size_t count() const { return rgb.size() / 3; }
  std::uint8_t* row(std::size_t y) const { return rgb.data() + y * row_bytes(); }
};

// The image as it is now, for operations that read neighbours or other places of it. Memory of the thread,
// valid until the thread's next call.
inline std::span<const std::uint8_t> kept_copy(const Pixels& image) {
  thread_local std::vector<std::uint8_t> copy;
  copy.assign(image.rgb.begin(), image.rgb.end());
  return copy;
}

inline std::uint8_t to_byte(int value) {
  return static_cast<std::uint8_t>(std::clamp(value, 0, 255));
}

}  // namespace qtrain::data
