#include "data/augment/transform.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/core/error.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

using Pixels = std::vector<std::uint8_t>;

RealBox real(const Box& box) {
  return DecodedPart{}.place_of(box);
}

// The same resize straight from its definition, in double precision, both axes at once and without rounding
// between them.
double reference_value(const Image& image, const Box& crop, Size full, int x, int y, int channel) {
  const auto weight = [](int tap, double center, double support) {
    return std::max(0.0, 1.0 - std::abs((tap + 0.5 - center) / support));
  };
  const double scale_x = static_cast<double>(crop.width) / full.width;
  const double scale_y = static_cast<double>(crop.height) / full.height;
  double sum = 0;
  double total = 0;
  for (int v = 0; v < crop.height; ++v) {
    const double wy = weight(v, (y + 0.5) * scale_y, std::max(1.0, scale_y));
    if (wy == 0) continue;
    for (int u = 0; u < crop.width; ++u) {
      const double w = wy * weight(u, (x + 0.5) * scale_x, std::max(1.0, scale_x));
      const auto at = static_cast<std::size_t>(((crop.top + v) * image.width + crop.left + u) * 3 + channel);
      sum += w * image.rgb[at];
      total += w;
    }
  }
  return sum / total;
}

void expect_matches_reference(const Image& image, const Box& crop, Size full, const Box& window, bool flip) {
  Pixels out(static_cast<std::size_t>(window.width * window.height * 3));
  resample(image, real(crop), full, window, flip, out);
  double worst = 0;
  for (int y = 0; y < window.height; ++y) {
    for (int x = 0; x < window.width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const int to_x = flip ? window.width - 1 - x : x;
        const double expected = reference_value(image, crop, full, window.left + x, window.top + y, c);
        const int got = out[static_cast<std::size_t>((y * window.width + to_x) * 3 + c)];
        worst = std::max(worst, std::abs(expected - got));
      }
    }
  }
  EXPECT_LE(worst, 1.01) << crop.width << "x" << crop.height << " to " << full.width << "x" << full.height;
}

TEST(Resample, MatchesTheDefinition) {
  const Image image = noise_image(61, 47, 1);
  const Box all{0, 0, 61, 47};
  expect_matches_reference(image, all, {20, 20}, {0, 0, 20, 20}, false);    // down
  expect_matches_reference(image, all, {100, 90}, {0, 0, 100, 90}, false);  // up
  expect_matches_reference(image, all, {200, 11}, {0, 0, 200, 11}, true);   // up and down, flipped
  expect_matches_reference(image, {7, 5, 31, 22}, {16, 24}, {0, 0, 16, 24}, false);
  expect_matches_reference(image, {60, 46, 1, 1}, {8, 8}, {0, 0, 8, 8}, false);
  expect_matches_reference(image, {3, 4, 50, 40}, {40, 32}, {9, 5, 20, 21}, true);  // a window of it
  expect_matches_reference(image, all, {1, 1}, {0, 0, 1, 1}, false);
}

TEST(Resample, SameSizeKeepsPixels) {
  const Image image = noise_image(13, 9, 2);
  Pixels out(image.rgb.size());
  resample(image, {0, 0, 13, 9}, {13, 9}, {0, 0, 13, 9}, false, out);
  EXPECT_EQ(out, image.rgb);
}

// Golden values of Pillow 13.0: Image.crop(...).resize((3, 2), BILINEAR) of pixels (37 i + 11) mod 256.
TEST(Resample, EqualsPillow) {
  Image image{7, 5, {}};
  for (int i = 0; i < 105; ++i) image.rgb.push_back(static_cast<std::uint8_t>((37 * i + 11) % 256));
  Pixels out(18);
  resample(image, {0, 0, 7, 5}, {3, 2}, {0, 0, 3, 2}, false, out);
  EXPECT_EQ(out,
            (Pixels{113, 97, 134, 154, 131, 111, 134, 169, 128, 93, 115, 152, 131, 108, 129, 152, 149, 83}));
  resample(image, {1, 1, 5, 3}, {3, 2}, {0, 0, 3, 2}, false, out);
  EXPECT_EQ(
      out, (Pixels{182, 109, 146, 157, 137, 117, 128, 165, 92, 125, 121, 158, 133, 113, 129, 140, 108, 104}));
}

TEST(Resample, PixelsOutsideTheCropHaveNoInfluence) {
  Image image = solid_image(40, 40, 255);
  for (int y = 10; y < 30; ++y) {
    for (int x = 10; x < 30; ++x) {
      for (int c = 0; c < 3; ++c) image.rgb[static_cast<std::size_t>((y * 40 + x) * 3 + c)] = 50;
    }
  }
  for (const int side : {5, 20, 33}) {
    Pixels out(static_cast<std::size_t>(side * side * 3));
    resample(image, {10, 10, 20, 20}, {side, side}, {0, 0, side, side}, false, out);
    EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](int v) { return v == 50; }));
  }
}

// Boxes whose sides lie between pixels: the filter's middle moves with them, pixels cut by them count whole.
TEST(Resample, CropsBetweenPixels) {
  Image ramp{16, 1, {}};
  for (int x = 0; x < 16; ++x) ramp.rgb.insert(ramp.rgb.end(), 3, static_cast<std::uint8_t>(16 * x));
  Pixels out(3 * 4);
  for (const double left : {0.0, 0.25, 1.5, 3.75}) {
    resample(ramp, {left, 0, 8, 1}, {4, 1}, {0, 0, 4, 1}, false, out);
    for (const std::size_t i : {1U, 2U}) {  // away from the crop's ends, the mean of a ramp is its middle
      EXPECT_NEAR(out[3 * i], 16 * (left + 2 * static_cast<double>(i) + 1 - 0.5), 1.0) << left << ", " << i;
    }
  }
  // A crop beyond the image is fine as long as the window needs none of what is missing.
  Pixels part(3 * 2);
  resample(ramp, {0, 0, 16, 1}, {8, 1}, {2, 0, 2, 1}, false, part);
  const Box needed = resample_reads({0, 0, 16, 1}, {8, 1}, {2, 0, 2, 1});
  Image cut{needed.width, 1, {}};
  cut.rgb.assign(ramp.rgb.begin() + 3 * needed.left, ramp.rgb.begin() + 3 * (needed.left + needed.width));
  Pixels same(3 * 2);
  resample(cut, {-1.0 * needed.left, 0, 16, 1}, {8, 1}, {2, 0, 2, 1}, false, same);
  EXPECT_EQ(same, part);
  EXPECT_THROW(resample(cut, {-1.0 * needed.left, 0, 16, 1}, {8, 1}, {1, 0, 2, 1}, false, same), ShapeError);
}

// Rounded weights of many taps may sum to more than 1.
TEST(Resample, WhiteStaysWhite) {
  for (const int width : {3, 100, 999, 20011}) {
    for (const int side : {1, 7}) {
      Pixels out(static_cast<std::size_t>(3 * side));
      resample(solid_image(width, 1, 255), {0, 0, 1.0 * width, 1}, {side, 1}, {0, 0, side, 1}, false, out);
      EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](int v) { return v == 255; })) << width;
    }
  }
}

TEST(Resample, RefusesBoxesOutside) {
  const Image image = solid_image(10, 10, 1);
  Pixels out(12);
  EXPECT_THROW(resample(image, {5, 0, 6, 2}, {2, 2}, {0, 0, 2, 2}, false, out), ShapeError);
  EXPECT_THROW(resample(image, {-1, 0, 6, 2}, {2, 2}, {0, 0, 2, 2}, false, out), ShapeError);
  EXPECT_THROW(resample(image, {0, 0, 10, 10}, {2, 2}, {1, 0, 2, 2}, false, out), ShapeError);
  EXPECT_THROW(resample(image, {0, 0, 10, 10}, {3, 3}, {0, 0, 3, 3}, false, out), ShapeError);
}

TEST(RandomResizedCrop, BoxStatistics) {
  constexpr Size size{500, 375};
  double area = 0;
  double log_ratio = 0;
  double left = 0;
  int lowest = 0;
  constexpr int draws = 20000;
  for (std::uint64_t i = 0; i < draws; ++i) {
    RandomStream random(7, RandomPurpose::augment, 0, i);
    const Box box = random_resized_crop_box(size, 0.08, 1.0, 0.75, 4.0 / 3.0, random);
    ASSERT_GE(box.left, 0);
    ASSERT_GE(box.top, 0);
    ASSERT_LE(box.left + box.width, size.width);
    ASSERT_LE(box.top + box.height, size.height);
    const double share = static_cast<double>(box.width) * box.height / (500.0 * 375.0);
    ASSERT_GT(share, 0.079);
    const double ratio = static_cast<double>(box.width) / box.height;
    ASSERT_GT(ratio, 0.74);
    ASSERT_LT(ratio, 1.36);
    area += share;
    left += box.left;
    log_ratio += std::log(ratio);
    lowest += share < 0.3 ? 1 : 0;
  }
  // From 300,000 draws of torchvision's get_params, written down independently. Large boxes of an unfit ratio
  // are drawn again, so the mean area is below (0.08 + 1) / 2 and ratios lean to the image's.
  EXPECT_NEAR(area / draws, 0.433, 0.006);
  EXPECT_NEAR(log_ratio / draws, 0.0306, 0.005);
  EXPECT_NEAR(static_cast<double>(lowest) / draws, 0.322, 0.012);
  EXPECT_NEAR(left / draws, 109.1, 3.0);
}

TEST(RandomResizedCrop, FallsBackToTheCentre) {
  RandomStream random(1, RandomPurpose::augment);
  EXPECT_EQ(random_resized_crop_box({1000, 10}, 0.9, 1.0, 0.75, 4.0 / 3.0, random), (Box{493, 0, 13, 10}));
  EXPECT_EQ(random_resized_crop_box({9, 1000}, 0.9, 1.0, 0.75, 4.0 / 3.0, random), (Box{0, 494, 9, 12}));
  EXPECT_EQ(random_resized_crop_box({1, 1}, 0.08, 0.1, 0.75, 4.0 / 3.0, random), (Box{0, 0, 1, 1}));
}

TEST(Transform, SizesAreTorchvisions) {
  EXPECT_EQ(resize_shorter({500, 375}, 256), (Size{341, 256}));
  EXPECT_EQ(resize_shorter({375, 500}, 256), (Size{256, 341}));
  EXPECT_EQ(resize_shorter({33, 33}, 64), (Size{64, 64}));
  EXPECT_EQ(center_crop_box({341, 256}, 224), (Box{58, 16, 224, 224}));  // 58.5 rounds to even
  EXPECT_EQ(center_crop_box({343, 256}, 224), (Box{60, 16, 224, 224}));
}

TEST(CropPadded, ZeroAndReflect) {
  Image image{3, 2, {}};
  for (const int v : {1, 2, 3, 4, 5, 6}) image.rgb.insert(image.rgb.end(), 3, static_cast<std::uint8_t>(v));
  const auto crop = [&](const Box& box, Padding padding, bool flip) {
    Pixels out(static_cast<std::size_t>(box.width * box.height * 3));
    crop_padded(image, box, padding, flip, out);
    Pixels firsts;
    for (std::size_t i = 0; i < out.size(); i += 3) firsts.push_back(out[i]);
    return firsts;
  };
  EXPECT_EQ(crop({-1, -1, 3, 2}, Padding::zero, false), (Pixels{0, 0, 0, 0, 1, 2}));
  EXPECT_EQ(crop({-1, -1, 3, 2}, Padding::zero, true), (Pixels{0, 0, 0, 2, 1, 0}));
  EXPECT_EQ(crop({1, 1, 3, 2}, Padding::zero, false), (Pixels{5, 6, 0, 0, 0, 0}));
  EXPECT_EQ(crop({-2, -1, 4, 2}, Padding::reflect, false), (Pixels{6, 5, 4, 5, 3, 2, 1, 2}));
  EXPECT_EQ(crop({1, 1, 4, 2}, Padding::reflect, false), (Pixels{5, 6, 5, 4, 2, 3, 2, 1}));
}

Pixels apply(const PipelineOptions& options, const Image& image, std::uint64_t index) {
  const Pipeline pipeline(options);
  Pixels out(pipeline.bytes_per_image());
  RandomStream random(5, RandomPurpose::augment, 2, index);
  const DecodedPart part{.pixels = image};
  pipeline.render(part, pipeline.plan(image.size(), random), random, out);
  return out;
}

TEST(Pipeline, EvaluationResizesAndCrops) {
  const Image image = noise_image(90, 70, 4);
  const PipelineOptions options{.image_size = 32, .train = false, .augment = Augment::imagenet};
  Pixels expected(32 * 32 * 3);
  resample(image, {0, 0, 90, 70}, {46, 36}, {7, 2, 32, 32}, false, expected);
  EXPECT_EQ(apply(options, image, 0), expected);
  EXPECT_EQ(apply({.image_size = 32, .train = true, .augment = Augment::resize}, image, 1), expected);
}

TEST(Pipeline, FlipsHalfOfTheImages) {
  Image image = solid_image(8, 8, 10);
  image.rgb[0] = 200;
  int flipped = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const Pixels out = apply({.image_size = 8, .augment = Augment::cifar, .padding = 0}, image, i);
    ASSERT_EQ(out[0] == 200, out[21] == 10);
    flipped += out[21] == 200 ? 1 : 0;
  }
  EXPECT_NEAR(flipped, 500, 60);
}

TEST(Pipeline, PaddedCropMovesByUpToThePadding) {
  Image image = solid_image(32, 32, 100);
  std::vector<int> seen(9);
  for (std::uint64_t i = 0; i < 500; ++i) {
    const Pixels out = apply({.image_size = 32, .augment = Augment::cifar, .flip_probability = 0}, image, i);
    int black = 0;  // columns of padding in the middle row, left ones negative
    for (std::size_t x = 0; x < 32; ++x) black += out[(16 * 32 + x) * 3] == 0 ? (x < 16 ? -1 : 1) : 0;
    ASSERT_LE(std::abs(black), 4);
    ++seen[static_cast<std::size_t>(black + 4)];
  }
  for (const int count : seen) EXPECT_GT(count, 30);
}

TEST(Pipeline, NoneCopiesAndWantsTheNetworksSize) {
  const Image image = noise_image(16, 16, 6);
  EXPECT_EQ(apply({.image_size = 16, .augment = Augment::none}, image, 0), image.rgb);
  EXPECT_THROW(apply({.image_size = 17, .augment = Augment::none}, image, 0), ShapeError);
  EXPECT_THROW(apply({.image_size = 17, .augment = Augment::cifar}, image, 0), ShapeError);
}

TEST(Pipeline, RefusesOptionsOutOfRange) {
  EXPECT_THROW(Pipeline({.image_size = 0}), ValueError);
  EXPECT_THROW(Pipeline({.crop_ratio = 0}), ValueError);
  EXPECT_THROW(Pipeline({.crop_ratio = 1.5}), ValueError);
  EXPECT_THROW(Pipeline({.scale_low = 0}), ValueError);
  EXPECT_THROW(Pipeline({.scale_low = 0.5, .scale_high = 0.4}), ValueError);
  EXPECT_THROW(Pipeline({.ratio_low = 2}), ValueError);
  EXPECT_THROW(Pipeline({.flip_probability = 1.5}), ValueError);
  EXPECT_THROW(Pipeline({.padding = -1}), ValueError);
  EXPECT_THROW(Pipeline({.scale_low = std::nan("")}), ValueError);
  EXPECT_TRUE(contains(message_of<ValueError>([] { parse_augment("imagent"); }), "did you mean 'imagenet'?"));
  EXPECT_EQ(parse_augment("cifar"), Augment::cifar);
}

}  // namespace
}  // namespace qtrain::data
