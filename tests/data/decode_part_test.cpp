// Decoding parts of images: the pixels are those of the whole, and no truncation gets through unseen.
#include <gtest/gtest.h>

#include <algorithm>

#include "data/codec/image_decoder.h"
#include "tests/data/jpeg_flavours.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

using Bytes = std::vector<std::byte>;

Box random_box(Size size, RandomStream& random) {
  const auto below = [&](int count) {
    return static_cast<int>(random.below(static_cast<std::uint64_t>(count)));
  };
  Box box;
  box.width = 1 + below(random.bernoulli(0.3) ? std::min(size.width, 12) : size.width);
  box.height = 1 + below(random.bernoulli(0.3) ? std::min(size.height, 12) : size.height);
  box.left = below(size.width - box.width + 1);
  box.top = below(size.height - box.height + 1);
  return box;
}

// The first pixel of `wanted` that is missing or differs from the whole's, in words.
std::string first_difference(const DecodedPart& part, const DecodedPart& whole, const Box& wanted) {
  if (part.scale != whole.scale) return "another scale";
  const int scale = part.scale;
  const int right = (wanted.left + wanted.width + scale - 1) / scale;
  const int bottom = (wanted.top + wanted.height + scale - 1) / scale;
  const auto pixel = [](const DecodedPart& from, int x, int y) {
    const int column = x - from.left;
    const int row = y - from.top;
    if (!inside({column, row, 1, 1}, from.pixels.size())) return std::vector<std::uint8_t>{};
    const auto at = from.pixels.rgb.begin() + 3 * (std::ptrdiff_t{row} * from.pixels.width + column);
    return std::vector<std::uint8_t>(at, at + 3);
  };
  for (int y = wanted.top / scale; y < bottom; ++y) {
    for (int x = wanted.left / scale; x < right; ++x) {
      if (pixel(part, x, y).empty() || pixel(part, x, y) != pixel(whole, x, y)) {
        return "pixel " + std::to_string(x) + ", " + std::to_string(y);
      }
    }
  }
  return {};
}

std::string words(const Box& box) {
  return std::to_string(box.width) + "x" + std::to_string(box.height) + "+" + std::to_string(box.left) + "+" +
         std::to_string(box.top);
}

TEST(DecodePart, PixelsAreThoseOfTheWholeImage) {
  RandomStream random(11, RandomPurpose::user);
  ImageDecoder decoder;
  ImageDecoder whole_decoder;
  for (const auto& [name, flavour] : jpeg_flavours()) {
    int smaller = 0;
    for (const Size size :
         {Size{97, 83}, Size{128, 96}, Size{17, 150}, Size{150, 33}, Size{9, 5}, Size{1, 1}}) {
      const Bytes file = noise_jpeg(size, flavour, 3);
      for (const int scale : {1, 2, 4, 8}) {
        ASSERT_EQ(whole_decoder.open(file, name), size);
        const DecodedPart& whole = whole_decoder.decode({0, 0, size.width, size.height}, 2 * scale);
        ASSERT_EQ(whole.scale, scale);
        ASSERT_EQ(whole.pixels.size(),
                  (Size{(size.width + scale - 1) / scale, (size.height + scale - 1) / scale}));
        for (int i = 0; i < 40; ++i) {
          const Box box = random_box(size, random);
          decoder.open(file, name);
          const DecodedPart& part = decoder.decode(box, scale * 3);
          ASSERT_EQ(first_difference(part, whole, box), "")
              << name << ", " << size.width << "x" << size.height << ", 1/" << scale << ", " << words(box);
          smaller += part.pixels.rgb.size() < whole.pixels.rgb.size() ? 1 : 0;
        }
      }
    }
    const bool parts_expected = !flavour.first_scans_only;
    EXPECT_EQ(smaller > 100, parts_expected) << name << ": " << smaller << " parts smaller than the whole";
  }
}

TEST(DecodePart, BothModesGiveTheSameAtFullSize) {
  ImageDecoder fast;
  ImageDecoder exact(DecodeMode::exact);
  for (const auto& [name, flavour] : jpeg_flavours()) {
    const Size size{90, 70};
    const Bytes file = noise_jpeg(size, flavour, 4);
    const Box box{21, 18, 40, 33};
    fast.open(file, name);
    exact.open(file, name);
    const DecodedPart& whole = exact.decode(box, 5.0);
    EXPECT_EQ(whole.scale, 1);
    EXPECT_EQ(whole.pixels.size(), size);
    EXPECT_EQ(whole.pixels.rgb, decode_image(file, name).rgb) << name;
    EXPECT_EQ(first_difference(fast.decode(box, 3.9), whole, box), "") << name;
  }
}

TEST(DecodePart, ScaleFollowsTheShrinking) {
  const Bytes file = noise_jpeg({200, 160}, {}, 5);
  ImageDecoder decoder;
  const auto scale_of = [&](double shrink) {
    decoder.open(file, "x");
    return decoder.decode({0, 0, 200, 160}, shrink).scale;
  };
  EXPECT_EQ(scale_of(0.5), 1);
  EXPECT_EQ(scale_of(3.99), 1);
  EXPECT_EQ(scale_of(4), 2);
  EXPECT_EQ(scale_of(7.99), 2);
  EXPECT_EQ(scale_of(8), 4);
  EXPECT_EQ(scale_of(15.9), 4);
  EXPECT_EQ(scale_of(100), 8);
}

TEST(DecodePart, PlaceOfABox) {
  const DecodedPart part{.pixels = {}, .scale = 4, .left = 10, .top = 3};
  const RealBox place = part.place_of({42, 12, 9, 16});
  EXPECT_EQ(place.left, 0.5);
  EXPECT_EQ(place.top, 0);
  EXPECT_EQ(place.width, 2.25);
  EXPECT_EQ(place.height, 4);
}

// Whichever part is wanted, also when it lies in front of what is missing.
TEST(DecodePart, TruncationIsAlwaysReported) {
  ImageDecoder decoder;
  for (const auto& [name, flavour] : jpeg_flavours()) {
    const Bytes file = noise_jpeg({96, 96}, flavour, 6);
    for (const int percent : {10, 50, 90, 99}) {
      const Bytes cut(
          file.begin(),
          file.begin() + static_cast<std::ptrdiff_t>(file.size() * static_cast<std::size_t>(percent) / 100));
      for (const Box& box : {Box{0, 0, 8, 8}, Box{40, 0, 8, 2}, Box{30, 50, 20, 20}, Box{0, 0, 96, 96}}) {
        for (const int shrink : {1, 16}) {
          const std::string message = message_of<FormatError>([&] {
            decoder.open(cut, "some/file.jpg");
            decoder.decode(box, shrink);
          });
          EXPECT_TRUE(contains(message, "some/file.jpg")) << name << ", " << percent << "%: " << message;
        }
      }
    }
    decoder.open(file, name);  // a decoder that has failed goes on with the next file
    decoder.decode({0, 0, 8, 8}, 1);
  }
}

TEST(DecodePart, AThumbnailsEndIsNotTheImages) {
  std::vector<std::uint8_t> exif = {'E', 'x', 'i', 'f', 0, 0};
  for (const std::byte each : noise_jpeg({16, 16}, {}, 7)) exif.push_back(static_cast<std::uint8_t>(each));
  const Bytes file = make_jpeg(96, 96, noise_image(96, 96, 8).rgb, {.exif_segment = exif});
  ImageDecoder decoder;
  EXPECT_EQ(decoder.open(file, "x"), (Size{96, 96}));
  EXPECT_LT(decoder.decode({0, 0, 8, 8}, 1).pixels.width, 96);
  const Bytes cut(file.begin(), file.end() - static_cast<std::ptrdiff_t>(file.size() / 4));
  decoder.open(cut, "x");
  EXPECT_THROW(decoder.decode({0, 0, 8, 8}, 1), FormatError);
}

TEST(DecodePart, BytesBehindTheEndAreHarmless) {
  Bytes file = noise_jpeg({96, 96}, {}, 9);
  file.resize(file.size() + 1000);
  ImageDecoder decoder;
  decoder.open(file, "x");
  EXPECT_LT(decoder.decode({0, 0, 8, 8}, 1).pixels.width, 96);
}

// Damage below the last row wanted isn't looked at and has no influence; above, it is found.
TEST(DecodePart, DamageCountsWhereItIsDecoded) {
  const Bytes sound = noise_jpeg({96, 96}, {}, 10);
  Bytes file = sound;
  const std::size_t middle = file.size() * 3 / 4;
  file[middle] = std::byte{0xFF};
  file[middle + 1] = std::byte{0xD9};
  ImageDecoder decoder;
  ImageDecoder sound_decoder;
  const Box above{10, 10, 40, 20};
  decoder.open(file, "x");
  sound_decoder.open(sound, "x");
  EXPECT_EQ(first_difference(decoder.decode(above, 1), sound_decoder.decode(above, 1), above), "");
  decoder.open(file, "x");
  EXPECT_THROW(decoder.decode({10, 80, 40, 16}, 1), FormatError);
}

// Tables of one file must not serve for the next.
TEST(DecodePart, FilesKnowNothingOfEachOther) {
  const Bytes file = noise_jpeg({32, 32}, {}, 12);
  Bytes without_tables = file;
  for (std::size_t i = 2; i + 4 < without_tables.size();) {
    const auto marker = std::to_integer<unsigned>(without_tables[i + 1]);
    const std::size_t length = 2 + (std::to_integer<std::size_t>(without_tables[i + 2]) << 8) +
                               std::to_integer<std::size_t>(without_tables[i + 3]);
    if (marker == 0xDA) break;
    const auto begin = without_tables.begin() + static_cast<std::ptrdiff_t>(i);
    if (marker == 0xDB)
      without_tables.erase(begin, begin + static_cast<std::ptrdiff_t>(length));
    else
      i += length;
  }
  ASSERT_LT(without_tables.size(), file.size());
  ImageDecoder decoder;
  decoder.open(file, "x");
  decoder.decode({0, 0, 32, 32}, 1);
  decoder.open(without_tables, "x");
  EXPECT_THROW(decoder.decode({0, 0, 32, 32}, 1), FormatError);
}

TEST(DecodePart, OtherFormatsAreDecodedWhole) {
  const Bytes file = bytes_of("P6 3 2 255\nabcdefghijklmnopqr");
  ImageDecoder decoder;
  EXPECT_EQ(decoder.open(file, "x"), (Size{3, 2}));
  const DecodedPart& part = decoder.decode({1, 1, 1, 1}, 8);
  EXPECT_EQ(part.scale, 1);
  EXPECT_EQ(part.left, 0);
  EXPECT_EQ(part.top, 0);
  EXPECT_EQ(part.pixels.rgb.size(), 18U);
  decoder.open({file.data(), file.size() - 1}, "x");
  EXPECT_THROW(decoder.decode({0, 0, 1, 1}, 1), FormatError);
}

TEST(DecodePart, RefusesWhatIsNoPart) {
  const Bytes file = noise_jpeg({32, 24}, {}, 13);
  ImageDecoder decoder;
  for (const Box& box : {Box{0, 0, 33, 1}, Box{-1, 0, 2, 2}, Box{0, 20, 4, 5}, Box{3, 3, 0, 1}}) {
    decoder.open(file, "x");
    EXPECT_THROW(decoder.decode(box, 1), ShapeError);
  }
  decoder.open(file, "x");
  decoder.decode({0, 0, 8, 8}, 1);
  EXPECT_THROW(decoder.decode({0, 0, 8, 8}, 1), FormatError);  // once for each open()
}

}  // namespace
}  // namespace qtrain::data
