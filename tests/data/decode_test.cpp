#include "data/codec/decode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/core/error.h"
#include "tests/data/jpeg_flavours.h"
#include "tests/data/png_fixture.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

using Bytes = std::vector<std::byte>;

std::string decode_error(const Bytes& bytes) {
  std::string message = message_of<FormatError>([&] { decode_image(bytes, "some/file.jpg"); });
  EXPECT_TRUE(contains(message, "some/file.jpg")) << message;
  return message;
}

Bytes cut(const Bytes& bytes, int percent) {
  return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(
                                             bytes.size() * static_cast<std::size_t>(percent) / 100)};
}

double mean_difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
  return sum / static_cast<double>(a.rgb.size());
}

void append(Bytes& bytes, std::initializer_list<int> values) {
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
}

TEST(Decode, JpegRoundTrip) {
  const Image original = smooth_image(83, 61);
  const Image decoded = decode_image(encode_jpeg(original, 95), "x");
  EXPECT_LT(mean_difference(original, decoded), 2.0);
}

TEST(Decode, ReusesTheImage) {
  Image image = noise_image(200, 100, 1);
  decode_image(encode_jpeg(solid_image(9, 5, 77), 90), "x", image);
  EXPECT_EQ(image.size(), (Size{9, 5}));
  ASSERT_EQ(image.rgb.size(), 9U * 5 * 3);
  for (const std::uint8_t value : image.rgb) EXPECT_NEAR(value, 77, 1);
}

TEST(Decode, GrayscaleIsRepeated) {
  const Bytes jpeg = make_jpeg(16, 8, std::vector<std::uint8_t>(128, 150), {.colour = JpegColour::gray});
  const Image image = decode_image(jpeg, "x");
  ASSERT_EQ(image.rgb.size(), 16U * 8 * 3);
  for (const std::uint8_t value : image.rgb) EXPECT_NEAR(value, 150, 1);
}

TEST(Decode, RgbWithoutColourTransform) {
  const Image original = smooth_image(32, 32);
  EXPECT_LT(mean_difference(original,
                            decode_image(make_jpeg(32, 32, original.rgb, {.colour = JpegColour::rgb}), "x")),
            2);
}

TEST(Decode, ProgressiveEqualsBaseline) {
  const Image original = noise_image(50, 40, 3);
  const Image baseline = decode_image(make_jpeg(50, 40, original.rgb, {}), "x");
  const Image progressive = decode_image(make_jpeg(50, 40, original.rgb, {.progressive = true}), "x");
  EXPECT_EQ(baseline.rgb, progressive.rgb);
}

// Adobe's inverted inks: stored (C', M', Y', K') stands for R = C' K' / 255.
TEST(Decode, CmykAndYcck) {
  constexpr int inks[4] = {200, 120, 40, 180};
  std::vector<std::uint8_t> samples;
  for (int i = 0; i < 16 * 16; ++i) {
    for (const int ink : inks) samples.push_back(static_cast<std::uint8_t>(ink));
  }
  for (const JpegColour colour : {JpegColour::cmyk, JpegColour::ycck}) {
    const Image image = decode_image(make_jpeg(16, 16, samples, {.colour = colour}, 100), "x");
    ASSERT_EQ(image.rgb.size(), 16U * 16 * 3);
    for (std::size_t i = 0; i < image.rgb.size(); ++i)
      EXPECT_NEAR(image.rgb[i], inks[i % 3] * 180 / 255.0, 2.5);
  }
}

TEST(Decode, ExifIsIgnored) {
  const Image original = smooth_image(40, 20);
  const std::vector<std::uint8_t> rotated = {'E', 'x',  'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1,
                                             1,   0x12, 0,   3,   0, 0, 0,   1,   0, 6,  0, 0, 0, 0, 0, 0};
  const std::vector<std::uint8_t> broken = {'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0xFF, 0xFF, 0xFF};
  const Image plain = decode_image(make_jpeg(40, 20, original.rgb, {}), "x");
  EXPECT_EQ(decode_image(make_jpeg(40, 20, original.rgb, {.exif_segment = rotated}), "x").rgb, plain.rgb);
  EXPECT_EQ(decode_image(make_jpeg(40, 20, original.rgb, {.exif_segment = broken}), "x").rgb, plain.rgb);
}

TEST(Decode, TrailingBytesAreHarmless) {
  Bytes jpeg = encode_jpeg(smooth_image(20, 20), 90);
  jpeg.resize(jpeg.size() + 100);
  EXPECT_EQ(decode_image(jpeg, "x").size(), (Size{20, 20}));
}

TEST(Decode, TruncatedJpeg) {
  const Image original = noise_image(64, 64, 5);
  for (const bool progressive : {false, true}) {
    const Bytes jpeg = make_jpeg(64, 64, original.rgb, {.progressive = progressive});
    for (const int percent : {1, 10, 50, 90, 99}) {
      const std::string message = decode_error(cut(jpeg, percent));
      EXPECT_TRUE(contains(message, "damaged JPEG data")) << message;
    }
    decode_error({jpeg.begin(), jpeg.begin() + 2});
    decode_error({jpeg.begin(), jpeg.begin() + 3});
  }
}

TEST(Decode, MarkerInTheMiddleOfTheData) {
  Bytes jpeg = encode_jpeg(noise_image(64, 64, 6), 90);
  jpeg[jpeg.size() / 2] = std::byte{0xFF};
  jpeg[jpeg.size() / 2 + 1] = std::byte{0xD9};
  decode_error(jpeg);
}

TEST(Decode, LostRestartMarker) {
  Bytes jpeg = make_jpeg(64, 64, noise_image(64, 64, 7).rgb, {.restart_interval = 2});
  ASSERT_EQ(decode_image(jpeg, "x").size(), (Size{64, 64}));
  for (std::size_t i = jpeg.size() / 2; i + 1 < jpeg.size(); ++i) {
    const bool marker = jpeg[i] == std::byte{0xFF} && (jpeg[i + 1] & std::byte{0xF8}) == std::byte{0xD0};
    if (!marker) continue;
    jpeg[i] = std::byte{0};
    break;
  }
  decode_error(jpeg);
}

TEST(Decode, HugeHeaderIsRefusedBeforeMemoryIsTaken) {
  Bytes jpeg = encode_jpeg(smooth_image(16, 16), 90);
  for (std::size_t i = 0; i + 8 < jpeg.size(); ++i) {
    if (jpeg[i] != std::byte{0xFF} || jpeg[i + 1] != std::byte{0xC0}) continue;
    for (const std::size_t k : {5U, 7U}) jpeg[i + k] = std::byte{0xFF};  // height, width = 0xFF10
  }
  const std::string message = decode_error(jpeg);
  EXPECT_TRUE(contains(message, "image size out of range")) << message;

  const std::string png = decode_error(make_png(1 << 20, 1 << 20, 8, 2, {}, {0, 1, 2, 3}));
  EXPECT_TRUE(contains(png, "[some/file.jpg]")) << png;
}

TEST(Decode, TheLimitOfPixelsCanBeLowered) {
  Image image;
  for (const Bytes& file :
       {encode_jpeg(smooth_image(10, 10), 90), bytes_of("P6 10 10 255\n" + std::string(300, 'x'))}) {
    EXPECT_THROW(decode_image(file, "x", image, 99), FormatError);
    decode_image(file, "x", image, 100);
    EXPECT_EQ(image.size(), (Size{10, 10}));
  }
}

TEST(Decode, NotAnImage) {
  EXPECT_TRUE(contains(decode_error({}), "empty"));
  EXPECT_TRUE(contains(decode_error(bytes_of("This is a letter.\nNot a picture.")),
                       "text that begins with 'This is"));
  EXPECT_TRUE(contains(decode_error(bytes_of("RIFF1234WEBPVP8 ")), "WebP data"));
  EXPECT_TRUE(contains(decode_error(Bytes(40)), "bytes 00 00"));
  decode_error(bytes_of("x"));
  decode_error(bytes_of("BM"));
  decode_error(bytes_of("GIF89a"));
  decode_error(bytes_of("P6\n"));
  decode_error(bytes_of("8BPS"));
}

TEST(Decode, RandomDamageNeverCrashes) {
  const Bytes jpeg = make_jpeg(48, 48, noise_image(48, 48, 9).rgb, {.progressive = true});
  RandomStream random(1, RandomPurpose::user);
  for (int i = 0; i < 300; ++i) {
    Bytes damaged = jpeg;
    for (int k = 0; k < 4; ++k) damaged[random.below(damaged.size())] = static_cast<std::byte>(random.next());
    try {
      const Image image = decode_image(damaged, "x");
      EXPECT_EQ(image.rgb.size(),
                static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3);
    } catch (const FormatError&) {
    }
  }
}

TEST(Decode, PngFlavours) {
  // Two pixels in a row: RGB, RGBA (alpha dropped, not blended), gray with alpha, palette, 16-bit (upper
  // byte).
  const auto decoded = [](const Bytes& png) { return decode_image(png, "x").rgb; };
  const std::vector<std::uint8_t> expected = {10, 20, 30, 40, 50, 60};
  EXPECT_EQ(decoded(make_png(2, 1, 8, 2, {}, {0, 10, 20, 30, 40, 50, 60})), expected);
  EXPECT_EQ(decoded(make_png(2, 1, 8, 6, {}, {0, 10, 20, 30, 0, 40, 50, 60, 128})), expected);
  EXPECT_EQ(decoded(make_png(2, 1, 8, 4, {}, {0, 10, 7, 90, 200})),
            (std::vector<std::uint8_t>{10, 10, 10, 90, 90, 90}));
  EXPECT_EQ(decoded(make_png(2, 1, 8, 3, bytes_of("\x0A\x14\x1E\x28\x32\x3C"), {0, 0, 1})), expected);
  EXPECT_EQ(decoded(make_png(2, 1, 16, 2, {}, {0, 10, 255, 20, 0, 30, 128, 40, 1, 50, 2, 60, 3})), expected);
}

TEST(Decode, TruncatedPng) {
  std::vector<std::uint8_t> rows(16 * (1 + 3 * 16), 100);
  for (std::size_t y = 0; y < 16; ++y) rows[y * 49] = 0;
  const Bytes png = make_png(16, 16, 8, 2, {}, rows);
  EXPECT_EQ(decode_image(png, "x").size(), (Size{16, 16}));
  for (const int percent : {5, 10, 50, 90, 98}) decode_error(cut(png, percent));
}

TEST(Decode, BmpPnmAndGif) {
  Bytes bmp = bytes_of("BM");
  append(bmp, {70, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0});
  bmp.resize(54);
  append(bmp,
         {9, 8, 7, 6, 5, 4, 0, 0, 3, 2, 1, 30, 20, 10, 0, 0});  // rows from below, BGR, padded to 4 bytes
  EXPECT_EQ(decode_image(bmp, "x").rgb, (std::vector<std::uint8_t>{1, 2, 3, 10, 20, 30, 7, 8, 9, 4, 5, 6}));
  EXPECT_TRUE(contains(decode_error(cut(bmp, 80)), "truncated"));
  decode_error(cut(bmp, 90));

  EXPECT_EQ(decode_image(bytes_of("P6 1 2 255\nabcdef"), "x").rgb,
            (std::vector<std::uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'}));
  EXPECT_TRUE(contains(decode_error(bytes_of("P6 1 2 255\nabcde")), "truncated"));

  EXPECT_TRUE(contains(decode_error(bytes_of("P6 1 1 # 16 bits\n65535\nabcdef")), "65535"));
  EXPECT_TRUE(contains(decode_error(bytes_of("P5 1 1 15\na")), "got 15"));

  EXPECT_TRUE(contains(decode_error(bytes_of("P6 3 33333333333 255\nx")), "333333333"));
  EXPECT_TRUE(contains(decode_error(bytes_of("P6 3 #\r33333333333 255\nx")), "333333333"));

  Bytes gif = bytes_of("GIF89a");
  append(gif, {2, 0, 1, 0, 0x80, 0, 0, 10, 20, 30, 40, 50, 60});              // 2 x 1, two colours
  append(gif, {0x2C, 0, 0, 0, 0, 2, 0, 1, 0, 0, 2, 2, 0x44, 0x0A, 0, 0x3B});  // pixels 0, 1
  EXPECT_EQ(decode_image(gif, "x").rgb, (std::vector<std::uint8_t>{10, 20, 30, 40, 50, 60}));
  decode_error(cut(gif, 85));
}

TEST(Encode, RefusesWhatJpegCannotHold) {
  EXPECT_THROW(encode_jpeg({}, 90), ValueError);
  EXPECT_THROW(encode_jpeg(solid_image(4, 4, 1), 0), ValueError);
  EXPECT_THROW(encode_jpeg(Image{4, 4, {1, 2, 3}}, 90), ValueError);
  EXPECT_THROW(encode_jpeg(solid_image(70000, 1, 1), 90), ValueError);
}

}  // namespace
}  // namespace qtrain::data
