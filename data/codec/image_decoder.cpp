#include "data/codec/image_decoder.h"

namespace qtrain::data {

RealBox DecodedPart::place_of(const Box& box) const {
  const double by = 1.0 / scale;
  return {box.left * by - left, box.top * by - top, box.width * by, box.height * by};
}

ImageDecoder::ImageDecoder(DecodeMode mode, std::int64_t max_pixels) : mode_(mode), max_pixels_(max_pixels) {}

Size ImageDecoder::open(std::span<const std::byte> file, const std::string& name_for_errors) {
  file_ = file;
  name_ = name_for_errors;
  decode_image(file_, name_, part_.pixels, max_pixels_);
  return part_.pixels.size();
}

const DecodedPart& ImageDecoder::decode(const Box& /*wanted*/, double /*shrink*/) {
  return part_;
}

}  // namespace qtrain::data
