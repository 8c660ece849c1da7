// PNG files of every kind of pixel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qtrain::data {

// With stored (uncompressed) data; checksums are left zero, as stb_image doesn't look at them. A row is a
// filter byte, 0, and the samples, 16-bit ones with the upper byte first. `colour_type`: 0 gray, 2 RGB, 3
// palette, 4 gray and alpha, 6 RGBA.
std::vector<std::byte> make_png(int width, int height, int depth, int colour_type,
                                const std::vector<std::byte>& palette,
                                const std::vector<std::uint8_t>& rows_with_filter_bytes);

}  // namespace qtrain::data
