#include "tests/data/jpeg_flavours.h"

#include <cstdio>  // jpeglib.h needs FILE
//
#include <jpeglib.h>

#include <cstdlib>

namespace qtrain::data {

std::vector<std::byte> make_jpeg(int width, int height, const std::vector<std::uint8_t>& samples,
                                 const JpegFlavour& flavour, int quality) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  const bool four = flavour.colour == JpegColour::cmyk || flavour.colour == JpegColour::ycck;
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = flavour.colour == JpegColour::gray ? 1 : four ? 4 : 3;
  info.in_color_space = flavour.colour == JpegColour::gray ? JCS_GRAYSCALE : four ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  if (flavour.colour == JpegColour::rgb) jpeg_set_colorspace(&info, JCS_RGB);
  if (flavour.colour == JpegColour::ycck) jpeg_set_colorspace(&info, JCS_YCCK);
  jpeg_set_quality(&info, quality, TRUE);
  if (flavour.progressive) jpeg_simple_progression(&info);
  info.restart_interval = flavour.restart_interval;
  jpeg_start_compress(&info, TRUE);
  if (!flavour.exif_segment.empty()) {
    jpeg_write_marker(&info, JPEG_APP0 + 1, flavour.exif_segment.data(),
                      static_cast<unsigned>(flavour.exif_segment.size()));
  }
  const std::size_t stride =
      static_cast<std::size_t>(width) * static_cast<std::size_t>(info.input_components);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(samples.data() + stride * info.next_scanline);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  const auto* first = reinterpret_cast<const std::byte*>(bytes);
  std::vector<std::byte> result(first, first + size);
  std::free(bytes);
  return result;
}

}  // namespace qtrain::data
