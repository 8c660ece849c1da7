// The longjmp rules of decode_jpeg.cpp hold here too.
#include <cstdio>  // jpeglib.h needs FILE
//
#include <jpeglib.h>

#include <csetjmp>
#include <cstdlib>
#include <memory>

#include "data/codec/decode.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

struct Encoder {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  unsigned char* bytes;  // grown by libjpeg with malloc
  unsigned long size;
};

[[noreturn]] void on_error(j_common_ptr info) {
  Encoder& encoder = *static_cast<Encoder*>(info->client_data);
  info->err->format_message(info, encoder.message);
  std::longjmp(encoder.escape, 1);  // NOLINT(cert-err52-cpp): libjpeg's only way out
}

bool encode(Encoder& encoder, const std::uint8_t* rgb, JDIMENSION width, JDIMENSION height, int quality) {
  if (setjmp(encoder.escape)) return false;  // NOLINT(cert-err52-cpp)
  jpeg_compress_struct& info = encoder.info;
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, &encoder.bytes, &encoder.size);
  info.image_width = width;
  info.image_height = height;
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < height) {
    JSAMPROW row = const_cast<JSAMPROW>(rgb + std::size_t{info.next_scanline} * width * 3);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  return true;
}

}  // namespace

std::vector<std::byte> encode_jpeg(const Image& image, int quality) {
  const bool sizes_fit = image.width >= 1 && image.height >= 1 && image.width <= JPEG_MAX_DIMENSION &&
                         image.height <= JPEG_MAX_DIMENSION &&
                         image.rgb.size() == std::size_t{3} * static_cast<std::size_t>(image.width) *
                                                 static_cast<std::size_t>(image.height);
  if (!sizes_fit || quality < 1 || quality > 100) {
    throw ValueError({.where = "encode_jpeg",
                      .what = "an image or quality that JPEG can't hold",
                      .got = std::to_string(image.width) + " x " + std::to_string(image.height) +
                             ", quality " + std::to_string(quality)});
  }
  Encoder encoder{};
  encoder.info.err = jpeg_std_error(&encoder.errors);
  encoder.info.client_data = &encoder;
  encoder.errors.error_exit = on_error;
  const bool ok = encode(encoder, image.rgb.data(), static_cast<JDIMENSION>(image.width),
                         static_cast<JDIMENSION>(image.height), quality);
  jpeg_destroy_compress(&encoder.info);
  const std::unique_ptr<unsigned char, decltype(&std::free)> owner(encoder.bytes, &std::free);
  if (!ok) throw ValueError({.where = "encode_jpeg", .what = encoder.message});
  const auto* first = reinterpret_cast<const std::byte*>(encoder.bytes);
  return {first, first + encoder.size};
}

}  // namespace qtrain::data
