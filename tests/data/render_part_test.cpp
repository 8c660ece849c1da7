// The way from a file to a network's pixels over a part of the image: the same pixels as from the whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "data/augment/transform.h"
#include "data/sets/demo_render.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

using Pixels = std::vector<std::uint8_t>;

Pixels rendered(const Pipeline& pipeline, const DecodedPart& part, const Geometry& geometry) {
  Pixels out(pipeline.bytes_per_image());
  RandomStream random(1, RandomPurpose::augment);
  pipeline.render(part, geometry, random, out);
  return out;
}

// What a loader does with a file.
Pixels loaded(const PipelineOptions& options, const std::vector<std::byte>& file, std::uint64_t index) {
  const Pipeline pipeline(options);
  ImageDecoder decoder(options.decode);
  const Size size = decoder.open(file, "x");
  RandomStream random(9, RandomPurpose::augment, 0, index);
  const Geometry geometry = pipeline.plan(size, random);
  return rendered(pipeline, decoder.decode(geometry.needed(size), geometry.shrink()), geometry);
}

// Both ways at the same scale, for crops of training and for the window of evaluation.
TEST(RenderPart, EqualsRenderingTheWhole) {
  ImageDecoder decoder;
  ImageDecoder whole_decoder;
  int parts = 0;
  std::vector<int> scales(9);
  for (const Size size : {Size{150, 110}, Size{90, 260}, Size{401, 307}, Size{40, 30}, Size{700, 33}}) {
    const std::vector<std::byte> file = encode_jpeg(noise_image(size.width, size.height, 3), 90);
    for (const int side : {8, 24, 64}) {
      for (const bool train : {true, false}) {
        const Pipeline pipeline({.image_size = side, .train = train});
        for (std::uint64_t i = 0; i < (train ? 20 : 1); ++i) {
          RandomStream random(2, RandomPurpose::augment, 0, i);
          const Geometry geometry = pipeline.plan(size, random);
          const Box needed = geometry.needed(size);
          ASSERT_TRUE(inside(needed, size));
          whole_decoder.open(file, "x");
          const DecodedPart& whole = whole_decoder.decode({0, 0, size.width, size.height}, geometry.shrink());
          decoder.open(file, "x");
          const DecodedPart& part = decoder.decode(needed, geometry.shrink());
          ASSERT_EQ(rendered(pipeline, part, geometry), rendered(pipeline, whole, geometry))
              << size.width << "x" << size.height << " to " << side << ", train " << train << ", " << i;
          parts += part.pixels.rgb.size() < whole.pixels.rgb.size() ? 1 : 0;
          ++scales[static_cast<std::size_t>(part.scale)];
        }
      }
    }
  }
  EXPECT_GT(parts, 200);
  for (const std::size_t scale : {1U, 2U, 4U, 8U}) EXPECT_GT(scales[scale], 10) << scale;
}

TEST(RenderPart, NothingElseHasInfluence) {
  const Size size{200, 120};
  const Pipeline pipeline({.image_size = 32, .train = false});
  RandomStream random(1, RandomPurpose::augment);
  const Geometry geometry = pipeline.plan(size, random);
  const Box needed = geometry.needed(size);
  EXPECT_LT(needed.width, 130);
  DecodedPart part{.pixels = noise_image(size.width, size.height, 4)};
  const Pixels before = rendered(pipeline, part, geometry);
  const auto invert = [&](bool inner) {
    for (int y = 0; y < size.height; ++y) {
      for (int x = 0; x < size.width; ++x) {
        if (inside({x - needed.left, y - needed.top, 1, 1}, {needed.width, needed.height}) != inner) continue;
        const std::size_t at = static_cast<std::size_t>(y * size.width + x) * 3;
        part.pixels.rgb[at] = static_cast<std::uint8_t>(255 - part.pixels.rgb[at]);
      }
    }
  };
  invert(false);
  EXPECT_EQ(rendered(pipeline, part, geometry), before);
  invert(true);
  EXPECT_NE(rendered(pipeline, part, geometry), before);
}

TEST(RenderPart, FastIsExactUntilTheImageIsFourTimesTheResult) {
  const std::vector<std::byte> file = encode_jpeg(noise_image(220, 200, 5), 90);
  for (const bool train : {true, false}) {
    for (std::uint64_t i = 0; i < 20; ++i) {
      PipelineOptions options{.image_size = 56, .train = train};
      const Pixels fast = loaded(options, file, i);
      options.decode = DecodeMode::exact;
      ASSERT_EQ(fast, loaded(options, file, i)) << i;
    }
  }
}

// Its pictures are at most 96 pixels high or wide; networks get them with 64 or 32.
TEST(RenderPart, FastIsExactOnTheDemoSet) {
  for (const int side : {64, 32}) {
    for (const bool train : {true, false}) {
      for (std::uint64_t i = 0; i < 40; ++i) {
        const auto file = encode_jpeg(render_demo_image(static_cast<int>(i % 10), Split::train, i), 90);
        PipelineOptions options{.image_size = side, .train = train};
        const Pixels fast = loaded(options, file, i);
        options.decode = DecodeMode::exact;
        ASSERT_EQ(fast, loaded(options, file, i)) << side << ", " << i;
      }
    }
  }
}

// Where the image is decoded smaller, both are filtered versions of it, by different filters.
TEST(RenderPart, FastIsCloseToExactInLargeImages) {
  const std::vector<std::byte> file = encode_jpeg(smooth_image(900, 700), 95);
  for (const bool train : {true, false}) {
    for (std::uint64_t i = 0; i < 20; ++i) {
      PipelineOptions options{.image_size = 56, .train = train};
      const Pixels fast = loaded(options, file, i);
      options.decode = DecodeMode::exact;
      const Pixels exact = loaded(options, file, i);
      int largest = 0;
      for (std::size_t k = 0; k < fast.size(); ++k) largest = std::max(largest, std::abs(fast[k] - exact[k]));
      EXPECT_LE(largest, 3) << i;
    }
  }
}

}  // namespace
}  // namespace qtrain::data
