#include "data/codec/image_decoder.h"

#include <fmt/format.h>

#include <memory>

#include "data/codec/decoders.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

// libjpeg-turbo has fast code for these scales. A smaller DCT cuts off high frequencies where the filter of
// resize() weakens them. It is left the last factor of 2 at least, so that its filter decides how the result
// looks: a network that was evaluated with images decoded down to nearly the result's size lost half a
// percent of accuracy, and the time that the last factor takes is small, since most goes into entropy
// decoding.
int scale_for(double shrink) {
  for (const int scale : {8, 4, 2}) {
    if (shrink >= 2 * scale) return scale;
  }
  return 1;
}

}  // namespace

RealBox DecodedPart::place_of(const Box& box) const {
  const double by = 1.0 / scale;  // a power of two: nothing is rounded
  return {box.left * by - left, box.top * by - top, box.width * by, box.height * by};
}

ImageDecoder::ImageDecoder(DecodeMode mode, std::int64_t max_pixels)
    : mode_(mode), max_pixels_(max_pixels), library_(Library::jpeg), jpeg_(std::make_unique<JpegDecoder>()) {}
ImageDecoder::~ImageDecoder() = default;
ImageDecoder::ImageDecoder(ImageDecoder&&) noexcept = default;
ImageDecoder& ImageDecoder::operator=(ImageDecoder&&) noexcept = default;

Size ImageDecoder::open(std::span<const std::byte> file, const std::string& name_for_errors) {
  file_ = file;
  name_ = name_for_errors;
  library_ = library_for(file_, name_);
  size_ = library_ == Library::jpeg ? jpeg_->open(file_, name_, max_pixels_)
                                    : size_by_stb(file_, name_, max_pixels_);
  return size_;
}

const DecodedPart& ImageDecoder::decode(const Box& wanted, double shrink) {
  if (!inside(wanted, size_)) {
    throw ShapeError({.where = name_,
                      .what = "a part outside of the image is wanted",
                      .got = fmt::format("{}x{}+{}+{}", wanted.width, wanted.height, wanted.left, wanted.top),
                      .expected = fmt::format("a part of {}x{}", size_.width, size_.height)});
  }
  if (library_ == Library::stb) {
    part_.scale = 1;
    part_.left = part_.top = 0;
    decode_with_stb(file_, name_, max_pixels_, part_.pixels);
  } else if (mode_ == DecodeMode::exact) {
    jpeg_->decode({0, 0, size_.width, size_.height}, 1, part_);
  } else {
    jpeg_->decode(wanted, scale_for(shrink), part_);
  }
  return part_;
}

}  // namespace qtrain::data
