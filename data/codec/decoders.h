// Inside of data/codec/: one decoder per library.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/codec/image_decoder.h"
#include "data/image.h"

namespace qtrain::data {

enum class Library { jpeg, stb };

// Which library reads a file, by its first bytes. FormatError for what none can.
Library library_for(std::span<const std::byte> file, const std::string& name);

struct JpegState;

// JPEG files through libjpeg-turbo, one after the other: open(), then decode() once.
class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(JpegDecoder&&) noexcept;
  JpegDecoder& operator=(JpegDecoder&&) noexcept;

  // Reads the head of a file, which must stay where it is until decode().
  Size open(std::span<const std::byte> file, const std::string& name, std::int64_t max_pixels);

  // Decodes at least the pixels of `wanted` at 1/scale of the file's size; scale is 1, 2, 4 or 8. They are,
  // bit by bit, those that decoding all at this scale gives; the part's other pixels may differ from that.
  void decode(const Box& wanted, int scale, DecodedPart& part);

 private:
  void check(bool ok) const;
  void read_cmyk(Image& image);

  std::unique_ptr<JpegState> state_;
  std::string name_;
  std::vector<std::uint8_t> row_;
};

// The size of an image that stb_image reads, and the image.
Size size_by_stb(std::span<const std::byte> file, const std::string& name, std::int64_t max_pixels);
void decode_with_stb(std::span<const std::byte> file, const std::string& name, std::int64_t max_pixels,
                     Image& image);

// Throws FormatError unless 1 <= width * height <= max_pixels.
void check_image_size(std::int64_t width, std::int64_t height, std::int64_t max_pixels,
                      const std::string& name);

[[noreturn]] void throw_damaged(const std::string& name, const std::string& what, const std::string& reason);

}  // namespace qtrain::data
