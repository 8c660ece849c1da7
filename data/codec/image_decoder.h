// Image files to pixels, only as many as are wanted. A decoder keeps its memory from image to image; each
// thread has its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "data/codec/decode.h"
#include "data/image.h"

namespace qtrain::data {

enum class DecodeMode {
  fast,  // JPEG: only what is wanted, and smaller than the file where it will be shrunk a lot anyway
  exact  // whole, at the file's size
};

// A part of an image, at the file's size or at 1/2, 1/4 or 1/8 of it: what a decoder found the cheapest way
// to give somebody what he wants.
struct DecodedPart {
  Image pixels;
  int scale = 1;  // pixels of the file, in each direction, that make one of these
  int left = 0;   // where `pixels` begin, counted in these
  int top = 0;

  // A rectangle of the file as one of `pixels`. It may reach beyond them.
  RealBox place_of(const Box& box) const;
};

class JpegDecoder;
enum class Library;

class ImageDecoder {
 public:
  explicit ImageDecoder(DecodeMode mode = DecodeMode::fast, std::int64_t max_pixels = max_image_pixels);
  ~ImageDecoder();
  ImageDecoder(ImageDecoder&&) noexcept;
  ImageDecoder& operator=(ImageDecoder&&) noexcept;

  // Reads the head of a file, which must stay where it is until decode(). Returns the image's size. Throws
  // FormatError as decode_image does; damage behind the head is found by decode().
  Size open(std::span<const std::byte> file, const std::string& name_for_errors);

  // Decodes at least the pixels of `wanted`, which will be resized to 1/shrink of their size (shrink < 1:
  // enlarged). They are at least twice as large as needed, or the file's. These are what decoding everything
  // would give at the same scale; pixels around them may not be. Once for each open(); the result is valid
  // until the next call. Throws FormatError for a truncated file, and for other damage as far as it decodes;
  // ShapeError unless `wanted` lies inside the image.
  const DecodedPart& decode(const Box& wanted, double shrink);

 private:
  DecodeMode mode_;
  std::int64_t max_pixels_;
  std::span<const std::byte> file_;
  std::string name_;
  Size size_;
  Library library_;
  std::unique_ptr<JpegDecoder> jpeg_;
  DecodedPart part_;
};

}  // namespace qtrain::data
