// What the augmentations draw, what they leave alone, and how the pipeline puts them together. Their results
// are compared with Pillow's in augment_reference_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "data/augment/geometric.h"
#include "data/augment/tone.h"
#include "data/augment/transform.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

using Bytes = std::vector<std::uint8_t>;

RandomStream stream(std::uint64_t index) {
  return {11, RandomPurpose::augment, 2, index};
}

// What an operation makes of an image.
template <class Change>
Bytes changed(Image image, const Change& change) {
  change(Pixels{image.rgb, image.size()});
  return std::move(image.rgb);
}

Bytes apply(const PipelineOptions& options, const Image& image, std::uint64_t index) {
  const Pipeline pipeline(options);
  RandomStream random = stream(index);
  Bytes out(pipeline.bytes_per_image());
  const Geometry geometry = pipeline.plan(image.size(), random);
  pipeline.render({.pixels = image}, geometry, random, out);
  return out;
}

TEST(Adjustments, WithoutStrengthNothingChanges) {
  const Image image = noise_image(31, 17, 1);
  const auto same = [&](const auto& change) { EXPECT_EQ(changed(image, change), image.rgb); };
  same([](const Pixels& p) { adjust_brightness(p, 1); });
  same([](const Pixels& p) { adjust_contrast(p, 1); });
  same([](const Pixels& p) { adjust_saturation(p, 1); });
  same([](const Pixels& p) { adjust_sharpness(p, 1); });
  same([](const Pixels& p) { add_lighting(p, {0, 0, 0}); });
  same([](const Pixels& p) { posterize(p, 8); });
  same([](const Pixels& p) { solarize(p, 256); });
  same([](const Pixels& p) { move(p, translate(0, 0)); });
  same([](const Pixels& p) { move(p, rotate(0, p.size)); });
  same([](const Pixels& p) { flip_rows(p), flip_rows(p); });
  for (const int size : {1, 2}) {  // too small for neighbours
    const Image small = noise_image(size, size, 2);
    EXPECT_EQ(changed(small, [](const Pixels& p) { adjust_sharpness(p, 0); }), small.rgb);
  }
}

TEST(Adjustments, OffMeansThatNothingIsDrawn) {
  const Image image = noise_image(9, 9, 3);
  const PixelAugmentation off{PixelOptions{}};
  RandomStream random = stream(0);
  EXPECT_EQ(changed(image, [&](const Pixels& p) { off.apply(p, random); }), image.rgb);
  EXPECT_EQ(random.next(), stream(0).next());
}

TEST(ColorJitter, DrawsTheOrderAndThenTheFactorsThatAreOn) {
  const Image image = noise_image(12, 10, 4);
  const ColorJitter jitter{.brightness = 0.4, .contrast = 0.3, .saturation = 1.2, .hue = 0.1};
  std::map<std::vector<int>, int> orders;
  for (std::uint64_t i = 0; i < 2400; ++i) {
    RandomStream random = stream(i);
    std::vector<int> order = {0, 1, 2, 3};
    for (std::size_t k = 3; k > 0; --k) std::swap(order[k], order[random.below(k + 1)]);
    ++orders[order];
    if (i >= 50) continue;
    const double factors[] = {random.uniform(0.6, 1.4), random.uniform(0.7, 1.3), random.uniform(0, 2.2),
                              random.uniform(-0.1, 0.1)};
    const Bytes expected = changed(image, [&](const Pixels& p) {
      void (*const adjust[])(const Pixels&, double) = {adjust_brightness, adjust_contrast, adjust_saturation,
                                                       adjust_hue};
      for (const int k : order) adjust[k](p, factors[k]);
    });
    RandomStream again = stream(i);
    EXPECT_EQ(changed(image, [&](const Pixels& p) { jitter.apply(p, again); }), expected);
  }
  EXPECT_EQ(orders.size(), 24U);
  for (const auto& [order, count] : orders) EXPECT_NEAR(count, 100, 40);
}

TEST(ColorJitter, FactorsAreUniform) {
  std::vector<int> counts(8);
  for (std::uint64_t i = 0; i < 4000; ++i) {
    RandomStream random = stream(i);
    const ColorJitter jitter{.brightness = 0.4};
    const int level = changed(solid_image(1, 1, 200), [&](const Pixels& p) { jitter.apply(p, random); })[0];
    ASSERT_TRUE(level >= 120 && level <= 255) << level;  // 200 * 0.6, and 200 * 1.4 clipped
    if (level < 240) ++counts[static_cast<std::size_t>((level - 120) / 20)];
  }
  for (std::size_t k = 0; k < 6; ++k) EXPECT_NEAR(counts[k], 500, 90) << k;
}

TEST(Lighting, HasTheCovarianceOfTheComponents) {
  // sum_k eigenvalue_k^2 component_k component_k^T, and 1/12 of a squared level from rounding.
  const double values[] = {0.2175, 0.0188, 0.0045};
  const double vectors[3][3] = {
      {-0.5675, 0.7192, 0.4009}, {-0.5808, -0.0045, -0.8140}, {-0.5836, -0.6948, 0.4203}};
  const PixelAugmentation lighting{PixelOptions{.lighting = 0.2}};
  constexpr int draws = 20000;
  double sum[3][3] = {};
  for (std::uint64_t i = 0; i < draws; ++i) {
    RandomStream random = stream(i);
    const Bytes out = changed(solid_image(1, 1, 128), [&](const Pixels& p) { lighting.apply(p, random); });
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b)
        sum[a][b] +=
            (out[static_cast<std::size_t>(a)] - 128.0) * (out[static_cast<std::size_t>(b)] - 128.0) / draws;
  }
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) {
      double expected = a == b ? 1.0 / 12 : 0;
      for (int k = 0; k < 3; ++k)
        expected += std::pow(255 * 0.2 * values[k], 2) * vectors[a][k] * vectors[b][k];
      EXPECT_NEAR(sum[a][b], expected, 0.05 * expected) << a << b;
    }
}

TEST(Lighting, AddsTheSameToEveryPixel) {
  const Image image = noise_image(67, 3, 5);  // whole blocks and a rest
  const Bytes out = changed(image, [](const Pixels& p) { add_lighting(p, {0.5, -0.7, 1.1}); });
  const double expected[] = {255 * (-0.5675 * 0.2175 * 0.5 - 0.7192 * 0.0188 * 0.7 + 0.4009 * 0.0045 * 1.1),
                             255 * (-0.5808 * 0.2175 * 0.5 + 0.0045 * 0.0188 * 0.7 - 0.8140 * 0.0045 * 1.1),
                             255 * (-0.5836 * 0.2175 * 0.5 + 0.6948 * 0.0188 * 0.7 + 0.4203 * 0.0045 * 1.1)};
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int offset = static_cast<int>(std::lround(expected[i % 3]));
    ASSERT_EQ(out[i], std::clamp(image.rgb[i] + offset, 0, 255)) << i;
  }
}

TEST(RandAugment, EveryOperationAndSignIsEquallyLikely) {
  Image image = noise_image(40, 40, 12);
  for (std::uint8_t& value : image.rgb) value = static_cast<std::uint8_t>(20 + value * 3 / 4);
  const auto result_of = [&](const auto& change) {
    const Bytes bytes = changed(image, change);
    return std::string(bytes.begin(), bytes.end());
  };
  std::map<std::string, double> expected;  // how often each result is due
  for (int k = 0; k < operation_count; ++k) {
    const auto operation = static_cast<Operation>(k);
    for (const bool negative : {false, true}) {
      if (negative && !has_sign(operation)) continue;
      const double share = 1.0 / operation_count / (has_sign(operation) ? 2 : 1);
      expected[result_of([&](const Pixels& p) { apply_operation(p, operation, 9, negative); })] += share;
    }
  }
  EXPECT_EQ(expected.size(), 23U);
  constexpr int draws = 7000;
  std::map<std::string, int> seen;
  for (std::uint64_t i = 0; i < draws; ++i) {
    RandomStream random = stream(i);
    ++seen[result_of([&](const Pixels& p) { RandAugment{.operations = 1}.apply(p, random); })];
  }
  EXPECT_EQ(seen.size(), expected.size());
  for (const auto& [bytes, share] : expected) EXPECT_NEAR(seen[bytes], draws * share, 80);
}

TEST(RandomErasing, BoxesHaveTheDrawnAreasAndRatios) {
  const Size size{224, 160};
  const ErasingOptions options;
  std::vector<int> areas(4);
  double log_ratio = 0;
  int boxes = 0;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    RandomStream random = stream(i);
    const std::optional<Box> box = erased_box(size, options, random);
    if (!box) continue;
    ++boxes;
    ASSERT_TRUE(box->left >= 0 && box->top >= 0 && box->width > 0 && box->height > 0);
    ASSERT_TRUE(box->left + box->width <= size.width && box->top + box->height <= size.height);
    const double area = static_cast<double>(box->width) * box->height / (size.width * size.height);
    ASSERT_TRUE(area > 0.018 && area < 0.34) << area;
    const double ratio = static_cast<double>(box->height) / box->width;
    ASSERT_TRUE(ratio > 0.28 && ratio < 3.5) << ratio;
    log_ratio += std::log(ratio);
    ++areas[std::min<std::size_t>(3, static_cast<std::size_t>((area - 0.02) / 0.0775))];
  }
  EXPECT_GT(boxes, 3990);
  EXPECT_NEAR(log_ratio / boxes, 0, 0.1);
  for (const int count : areas) EXPECT_NEAR(count, boxes / 4, 200);
}

TEST(RandomErasing, FillsTheBoxAndNothingElse) {
  ErasingOptions options{.probability = 0.25, .mean = {124.4, 116.6, 0}};
  const Image image = solid_image(50, 40, 255);
  int erased = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    RandomStream random = stream(i);
    const Bytes out = changed(image, [&](const Pixels& p) { RandomErasing(options).apply(p, random); });
    RandomStream again = stream(i);
    Box box;
    if (again.bernoulli(0.25)) box = erased_box(image.size(), options, again).value_or(Box{});
    erased += box.width > 0 ? 1 : 0;
    for (std::size_t k = 0; k < out.size(); ++k) {
      const int x = static_cast<int>(k / 3 % 50);
      const int y = static_cast<int>(k / 3 / 50);
      const bool inside =
          x >= box.left && x < box.left + box.width && y >= box.top && y < box.top + box.height;
      const int levels[] = {124, 117, 0};
      ASSERT_EQ(out[k], inside ? levels[k % 3] : 255);
    }
  }
  EXPECT_NEAR(erased, 500, 60);
}

TEST(RandomErasing, NoiseHasTheNormalizationsMoments) {
  const ErasingOptions options{.probability = 1,
                               .area_low = 0.5,
                               .area_high = 0.5,
                               .ratio_low = 1,
                               .ratio_high = 1,
                               .mode = ErasingMode::noise,
                               .mean = {124, 116, 30},
                               .deviation = {40, 20, 40}};
  RandomStream random = stream(0);
  Image image = solid_image(400, 400, 0);
  RandomErasing(options).apply({image.rgb, image.size()}, random);
  RandomStream again = stream(0);
  (void)again.bernoulli(1);
  const Box box = erased_box(image.size(), options, again).value();
  const double pixels = static_cast<double>(box.width) * box.height;
  double product = 0;  // of the first two channels, which are independent
  for (std::size_t c = 0; c < 3; ++c) {
    double sum = 0;
    double squares = 0;
    int zeros = 0;
    for (int y = box.top; y < box.top + box.height; ++y)
      for (int x = box.left; x < box.left + box.width; ++x) {
        const auto at = static_cast<std::size_t>((y * 400 + x) * 3);
        const double value = image.rgb[at + c];
        sum += value;
        squares += value * value;
        zeros += value == 0 ? 1 : 0;
        if (c == 0) product += (value - 124) * (image.rgb[at + 1] - 116.0);
      }
    const double mean = sum / pixels;
    if (c < 2) {
      EXPECT_NEAR(mean, options.mean[c], 0.02 * options.deviation[c]);
      EXPECT_NEAR(std::sqrt(squares / pixels - mean * mean), options.deviation[c],
                  0.02 * options.deviation[c]);
    } else {  // what is below 1/2 becomes black
      EXPECT_NEAR(zeros / pixels, 0.5 * std::erfc((30 - 0.5) / 40 / std::sqrt(2.0)), 0.01);
    }
  }
  EXPECT_NEAR(product / pixels / (40 * 20), 0, 0.02);
}

TEST(Pipeline, FlipsRowsWhenAskedTo) {
  const Image image = noise_image(16, 16, 6);
  const PipelineOptions upright{
      .image_size = 16, .augment = Augment::cifar, .flip_probability = 0, .padding = 0};
  EXPECT_EQ(apply(upright, image, 0), image.rgb);
  PipelineOptions always = upright;
  always.vertical_flip_probability = 1;
  EXPECT_EQ(apply(always, image, 0), changed(image, flip_rows));
  PipelineOptions sometimes = upright;
  sometimes.vertical_flip_probability = 0.3;
  int flipped = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) flipped += apply(sometimes, image, i) != image.rgb ? 1 : 0;
  EXPECT_NEAR(flipped, 300, 50);
  always.train = false;
  EXPECT_EQ(apply(always, image, 0), image.rgb);
}

TEST(Pipeline, CropsPaddedImagesOfAnySize) {
  for (const int side : {28, 96}) {
    const Image image = noise_image(side, side, 7);
    for (const Padding mode : {Padding::zero, Padding::reflect}) {
      const PipelineOptions options{.image_size = side,
                                    .augment = Augment::cifar,
                                    .flip_probability = 0,
                                    .padding = 12,
                                    .padding_mode = mode};
      for (std::uint64_t i = 0; i < 20; ++i) {
        RandomStream random = stream(i);
        const int top = static_cast<int>(random.below(25)) - 12;
        const int left = static_cast<int>(random.below(25)) - 12;
        const Bytes out = apply(options, image, i);
        for (int y = 0; y < side; ++y)
          for (int x = 0; x < side; ++x) {
            const bool outside = y + top < 0 || x + left < 0 || y + top >= side || x + left >= side;
            const auto mirrored = [&](int p) { return side - 1 - std::abs(side - 1 - std::abs(p)); };
            const auto from = static_cast<std::size_t>(mirrored(y + top) * side + mirrored(x + left)) * 3;
            const bool black = outside && mode == Padding::zero;
            ASSERT_EQ(out[static_cast<std::size_t>(y * side + x) * 3], black ? 0 : image.rgb[from]);
          }
      }
    }
  }
}

TEST(Pipeline, ChangesPixelsInTheDocumentedOrder) {
  PipelineOptions options{.image_size = 24};
  options.vertical_flip_probability = 0.5;
  const PipelineOptions plain = options;
  options.pixels = {.rand_augment = {.operations = 2, .magnitude = 12},
                    .color_jitter = {.brightness = 0.4, .hue = 0.1},
                    .lighting = 0.1,
                    .erasing = {.probability = 0.5, .mean = {1, 2, 3}}};
  const Image image = smooth_image(60, 50);
  for (std::uint64_t i = 0; i < 30; ++i) {
    RandomStream random = stream(i);
    const Pipeline pipeline(plain);
    Bytes expected(pipeline.bytes_per_image());
    pipeline.render({.pixels = image}, pipeline.plan(image.size(), random), random, expected);
    const Pixels pixels{expected, {24, 24}};
    options.pixels.rand_augment.apply(pixels, random);
    options.pixels.color_jitter.apply(pixels, random);
    const double a = 0.1 * random.normal();
    const double b = 0.1 * random.normal();
    const double c = 0.1 * random.normal();
    add_lighting(pixels, {a, b, c});
    RandomErasing(options.pixels.erasing).apply(pixels, random);
    EXPECT_EQ(apply(options, image, i), expected);
  }
}

TEST(Pipeline, EvaluationChangesNoPixels) {
  PipelineOptions options{.image_size = 24, .train = false};
  const Image image = smooth_image(60, 50);
  const Bytes plain = apply(options, image, 0);
  options.pixels = {.rand_augment = {.operations = 2}, .lighting = 0.1, .erasing = {.probability = 1}};
  EXPECT_EQ(apply(options, image, 0), plain);
}

TEST(Pipeline, RefusesAugmentationOutOfRange) {
  const auto refused = [](const PixelOptions& pixels) {
    EXPECT_THROW(Pipeline({.pixels = pixels}), ValueError);
  };
  refused({.rand_augment = {.operations = -1}});
  refused({.rand_augment = {.operations = 1, .magnitude = 31}});
  refused({.color_jitter = {.brightness = -0.1}});
  refused({.color_jitter = {.hue = 0.6}});
  refused({.lighting = std::nan("")});
  refused({.erasing = {.probability = 1.5}});
  refused({.erasing = {.area_low = 0.5, .area_high = 0.4}});
  refused({.erasing = {.ratio_low = 0}});
  refused({.erasing = {.probability = 1, .mode = ErasingMode::noise}});  // without a deviation
  EXPECT_THROW(Pipeline({.vertical_flip_probability = -1}), ValueError);
  EXPECT_THROW(Pipeline({.augment = Augment::none, .pixels = {.lighting = 0.1}}), ValueError);
  EXPECT_NO_THROW(Pipeline({.train = false, .augment = Augment::none, .pixels = {.lighting = 0.1}}));
}

}  // namespace
}  // namespace qtrain::data
