// Image files to pixels and back. What a file is, is decided by its first bytes, never by its name.
//
// Read: JPEG (8-bit baseline, extended and progressive; grayscale, RGB, YCbCr, CMYK and YCCK) through
// libjpeg-turbo; PNG, BMP, GIF (its first frame), PSD and PNM through stb_image. Everything becomes RGB as
// Pillow's convert("RGB") does: grayscale is repeated, palettes are looked up, alpha is dropped, 16-bit
// samples keep their upper byte. EXIF is ignored, the orientation included, as torchvision's ImageFolder
// does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"

namespace qtrain::data {

// Larger images are refused before memory is taken for their pixels.
inline constexpr std::int64_t max_image_pixels = 64'000'000;

// Decodes a whole file into `image`, whose memory is reused. Throws FormatError, which names the file and the
// reason, for anything that is not a complete image: an empty or truncated file, an unknown format, damaged
// data. `image` is then unspecified. Thread-safe.
void decode_image(std::span<const std::byte> bytes, const std::string& name_for_errors, Image& image,
                  std::int64_t max_pixels = max_image_pixels);
Image decode_image(std::span<const std::byte> bytes, const std::string& name_for_errors);

// A baseline JPEG of quality 1..100 with 4:2:0 chroma, as most cameras and tools write it. Throws ValueError
// for an empty image, a wrong number of pixels or a side above 65500.
std::vector<std::byte> encode_jpeg(const Image& image, int quality);

}  // namespace qtrain::data
