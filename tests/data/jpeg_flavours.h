// JPEG files that encode_jpeg doesn't write: other colour spaces, progressive, with restart markers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "data/image.h"

namespace qtrain::data {

enum class JpegColour { gray, rgb, ycc, cmyk, ycck };

struct JpegFlavour {
  JpegColour colour = JpegColour::ycc;
  bool progressive = false;
  unsigned restart_interval = 0;  // in blocks
  // Of the first channel (and of CMYK's black), relative to the others; 0: libjpeg's choice, 2 x 2 for ycc.
  int horizontal = 0;
  int vertical = 0;
  bool one_scan_a_channel = false;
  bool first_scans_only = false;           // progressive: all details are left out
  bool arithmetic = false;                 // coding
  std::vector<std::uint8_t> exif_segment;  // content of an APP1 marker
};

// `samples` are interleaved: 1 channel for gray, 3 (RGB) for rgb and ycc, 4 (CMYK as stored) for cmyk and
// ycck.
std::vector<std::byte> make_jpeg(int width, int height, const std::vector<std::uint8_t>& samples,
                                 const JpegFlavour& flavour, int quality = 95);

struct NamedFlavour {
  std::string name;
  JpegFlavour flavour;
};

// Every kind of JPEG that decoders treat differently.
const std::vector<NamedFlavour>& jpeg_flavours();

// Noise differs from pixel to pixel, so that a pixel out of place or made in another way shows.
std::vector<std::byte> noise_jpeg(Size size, const JpegFlavour& flavour, std::uint64_t seed);

}  // namespace qtrain::data
