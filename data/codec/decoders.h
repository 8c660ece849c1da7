// Inside of data/codec/decode.h: one decoder per library.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "data/image.h"

namespace qtrain::data {

void decode_jpeg(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels,
                 Image& image);
void decode_with_stb(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels,
                     Image& image);

// Throws FormatError unless 1 <= width * height <= max_pixels.
void check_image_size(std::int64_t width, std::int64_t height, std::int64_t max_pixels,
                      const std::string& name);

[[noreturn]] void throw_damaged(const std::string& name, const std::string& what, const std::string& reason);

}  // namespace qtrain::data
