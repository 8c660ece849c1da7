#include "tests/data/jpeg_flavours.h"

#include <cstdio>  // jpeglib.h needs FILE
//
#include <jpeglib.h>

#include <cstdlib>

#include "engine/core/rng.h"

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
  if (flavour.horizontal > 0) {
    for (int i = 0; i < info.num_components; ++i) {
      const bool fine = i == 0 || i == 3;
      info.comp_info[i].h_samp_factor = fine ? flavour.horizontal : 1;
      info.comp_info[i].v_samp_factor = fine ? flavour.vertical : 1;
    }
  }
  if (flavour.progressive) jpeg_simple_progression(&info);
  jpeg_scan_info scans[4]{};  // members: channels in the scan, which, first and last coefficient, precision
  if (flavour.one_scan_a_channel) {
    for (int i = 0; i < info.num_components; ++i) scans[i] = {1, {i}, 0, 63, 0, 0};
    info.scan_info = scans;
    info.num_scans = info.num_components;
  }
  if (flavour.first_scans_only) {
    scans[0] = {info.num_components, {0, 1, 2, 3}, 0, 0, 0, 0};
    scans[1] = {1, {0}, 1, 5, 0, 2};
    info.scan_info = scans;
    info.num_scans = 2;
  }
  info.arith_code = flavour.arithmetic ? TRUE : FALSE;
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

const std::vector<NamedFlavour>& jpeg_flavours() {
  static const std::vector<NamedFlavour> all = {
      {"4:2:0", {}},
      {"4:2:2", {.horizontal = 2, .vertical = 1}},
      {"4:4:4", {.horizontal = 1, .vertical = 1}},
      {"4:4:0", {.horizontal = 1, .vertical = 2}},
      {"4:1:1", {.horizontal = 4, .vertical = 1}},
      {"4:1:0", {.horizontal = 4, .vertical = 2}},
      {"2x4", {.horizontal = 2, .vertical = 4}},
      {"1x4", {.horizontal = 1, .vertical = 4}},
      {"gray", {.colour = JpegColour::gray}},
      {"gray 2x2", {.colour = JpegColour::gray, .horizontal = 2, .vertical = 2}},
      {"rgb", {.colour = JpegColour::rgb}},
      {"cmyk", {.colour = JpegColour::cmyk}},
      {"ycck", {.colour = JpegColour::ycck, .horizontal = 2, .vertical = 2}},
      {"restart markers", {.restart_interval = 3}},
      {"a scan a channel", {.one_scan_a_channel = true}},
      {"a scan a channel, 4:4:0", {.horizontal = 1, .vertical = 2, .one_scan_a_channel = true}},
      {"arithmetic", {.arithmetic = true}},
      {"progressive", {.progressive = true}},
      {"progressive 4:2:2", {.progressive = true, .horizontal = 2, .vertical = 1}},
      {"progressive 4:4:4", {.progressive = true, .horizontal = 1, .vertical = 1}},
      {"progressive 4:4:0", {.progressive = true, .horizontal = 1, .vertical = 2}},
      {"progressive 4:1:0", {.progressive = true, .horizontal = 4, .vertical = 2}},
      {"progressive gray", {.colour = JpegColour::gray, .progressive = true}},
      {"progressive cmyk", {.colour = JpegColour::cmyk, .progressive = true}},
      {"progressive arithmetic", {.progressive = true, .arithmetic = true}},
      {"first scans only", {.progressive = true, .first_scans_only = true}},
  };
  return all;
}

std::vector<std::byte> noise_jpeg(Size size, const JpegFlavour& flavour, std::uint64_t seed) {
  const bool four = flavour.colour == JpegColour::cmyk || flavour.colour == JpegColour::ycck;
  const std::size_t channels = flavour.colour == JpegColour::gray ? 1 : four ? 4 : 3;
  std::vector<std::uint8_t> samples(static_cast<std::size_t>(size.width) *
                                    static_cast<std::size_t>(size.height) * channels);
  RandomStream random(seed, RandomPurpose::user);
  for (std::uint8_t& sample : samples) sample = static_cast<std::uint8_t>(random.next());
  return make_jpeg(size.width, size.height, samples, flavour, 85);
}

}  // namespace qtrain::data
