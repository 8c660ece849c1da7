#include "data/augment/mix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "data/augment/beta.h"
#include "data/loader/loader.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

using Bytes = std::vector<std::uint8_t>;

struct Moments {
  double mean = 0;
  double variance = 0;
};

template <class Draw>
Moments moments_of(int count, const Draw& draw) {
  RandomStream random(5, RandomPurpose::user);
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < count; ++i) {
    const double x = draw(random);
    sum += x;
    squares += x * x;
  }
  return {sum / count, squares / count - sum / count * (sum / count)};
}

TEST(Gamma, HasItsMoments) {
  for (const double shape : {0.1, 0.5, 1.0, 2.5, 30.0}) {
    const Moments m =
        moments_of(200'000, [&](RandomStream& r) { return std::exp(draw_log_gamma(r, shape)); });
    EXPECT_NEAR(m.mean, shape, 0.02 * shape) << shape;
    EXPECT_NEAR(m.variance, shape, 0.04 * shape) << shape;
  }
}

TEST(Beta, HasItsMoments) {
  const auto check = [](double a, double b) {
    const Moments m = moments_of(200'000, [&](RandomStream& r) { return draw_beta(r, a, b); });
    const double mean = a / (a + b);
    const double variance = mean * (1 - mean) / (a + b + 1);
    EXPECT_NEAR(m.mean, mean, 0.01) << a << " " << b;
    EXPECT_NEAR(m.variance, variance, 0.02 * variance) << a << " " << b;
  };
  for (const double a : {0.1, 0.2, 0.8, 1.0, 4.0}) check(a, a);
  check(2, 5);
}

TEST(Beta, OneAndOneIsUniform) {
  RandomStream random(6, RandomPurpose::user);
  std::vector<int> counts(10);
  for (int i = 0; i < 20'000; ++i) ++counts[static_cast<std::size_t>(draw_beta(random, 1, 1) * 10)];
  for (const int count : counts) EXPECT_NEAR(count, 2000, 180);
}

TEST(Beta, TakesShapesWhoseGammasNoDoubleHolds) {
  RandomStream random(7, RandomPurpose::user);
  int ends = 0;
  for (int i = 0; i < 2000; ++i) {
    const double x = draw_beta(random, 1e-4, 1e-4);
    ASSERT_TRUE(x >= 0 && x <= 1) << x;
    ends += x < 1e-9 || x > 1 - 1e-9 ? 1 : 0;
  }
  EXPECT_GT(ends, 1950);
}

TEST(Mixing, IsDrawnAsAsked) {
  const Size size{32, 24};
  const auto count = [&](const MixOptions& options, const auto& holds) {
    int result = 0;
    for (std::uint64_t i = 0; i < 2000; ++i) {
      RandomStream random(8, RandomPurpose::mix, 1, i);
      result += holds(draw_mixing(options, size, random)) ? 1 : 0;
    }
    return result;
  };
  const auto cuts = [](const Mixing& m) { return m.cuts; };
  const auto blends = [](const Mixing& m) { return !m.cuts && m.lambda < 1; };
  const auto rests = [](const Mixing& m) { return m.lambda == 1; };
  EXPECT_EQ(count({}, rests), 2000);
  EXPECT_EQ(count({.mixup_alpha = 0.8}, blends), 2000);
  EXPECT_EQ(count({.cutmix_alpha = 1}, cuts), 2000);
  EXPECT_NEAR(count({.mixup_alpha = 0.8, .cutmix_alpha = 1}, cuts), 1000, 100);
  EXPECT_NEAR(count({.mixup_alpha = 0.8, .cutmix_alpha = 1, .switch_probability = 0.2}, cuts), 400, 80);
  EXPECT_NEAR(count({.mixup_alpha = 0.8, .probability = 0.3}, blends), 600, 90);
}

TEST(Mixing, TheBoxIsWhatTheImageLoses) {
  const Size size{32, 24};
  bool clipped = false;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    RandomStream random(9, RandomPurpose::mix, 0, i);
    const Mixing m = draw_mixing({.cutmix_alpha = 1}, size, random);
    RandomStream again(9, RandomPurpose::mix, 0, i);
    (void)again.uniform();
    const double side = std::sqrt(1 - draw_beta(again, 1, 1));
    ASSERT_TRUE(m.box.left >= 0 && m.box.top >= 0);
    ASSERT_TRUE(m.box.left + m.box.width <= 32 && m.box.top + m.box.height <= 24);
    ASSERT_LE(m.box.width, static_cast<int>(32 * side));
    ASSERT_LE(m.box.height, static_cast<int>(24 * side));
    clipped = clipped || m.box.width < static_cast<int>(32 * side);
    EXPECT_DOUBLE_EQ(m.lambda, 1 - m.box.width * m.box.height / (32.0 * 24));
  }
  EXPECT_TRUE(clipped);
}

TEST(MixImages, BlendsWithTheMirroredOrder) {
  const Size size{7, 5};
  constexpr std::size_t each = 7 * 5 * 3;
  for (const std::size_t count : {1U, 2U, 5U}) {
    const Bytes before = noise_image(7, static_cast<int>(5 * count), 10).rgb;
    for (const double lambda : {1e-6, 0.3, 0.5, 0.9999999}) {
      Bytes images = before;
      mix_images({.lambda = lambda}, images, count, size);
      for (std::size_t i = 0; i < count; ++i)
        for (std::size_t k = 0; k < each; ++k) {
          const double own = before[i * each + k];
          const double partner = before[(count - 1 - i) * each + k];
          ASSERT_NEAR(images[i * each + k], lambda * own + (1 - lambda) * partner, 0.51);
        }
    }
    Bytes images = before;
    mix_images({.lambda = 1}, images, count, size);
    EXPECT_EQ(images, before);
  }
}

TEST(MixImages, CutsTheBoxOutOfTheMirroredOrder) {
  const Size size{7, 5};
  constexpr std::size_t each = 7 * 5 * 3;
  const Box box{2, 1, 4, 3};
  for (const std::size_t count : {1U, 4U, 5U}) {
    const Bytes before = noise_image(7, static_cast<int>(5 * count), 11).rgb;
    Bytes images = before;
    mix_images({.lambda = 1 - 12.0 / 35, .cuts = true, .box = box}, images, count, size);
    for (std::size_t i = 0; i < count; ++i)
      for (std::size_t k = 0; k < each; ++k) {
        const std::size_t x = k / 3 % 7;
        const std::size_t y = k / 3 / 7;
        const bool cut = x >= 2 && x < 6 && y >= 1 && y < 4;
        ASSERT_EQ(images[i * each + k], before[(cut ? count - 1 - i : i) * each + k]);
      }
  }
}

TEST(MixOptions, RefusesWhatIsOutOfRange) {
  for (const MixOptions& options : {MixOptions{.mixup_alpha = -1}, MixOptions{.cutmix_alpha = std::nan("")},
                                    MixOptions{.probability = 2}, MixOptions{.switch_probability = -0.1}})
    EXPECT_THROW(options.check(), ValueError);
}

class SmallImages : public Dataset {
 public:
  explicit SmallImages(Content content = Content::pixels) : content_(content) {}
  std::size_t size() const override { return 75; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Content content() const override { return content_; }
  void fetch(std::size_t index, Record& record) const override {
    record.image = noise_image(24, 20, index);
    record.label = static_cast<std::int64_t>(index % 3);
  }
  std::string describe(std::size_t index) const override { return std::to_string(index); }

 private:
  Content content_;
  std::vector<std::string> names_ = {"a", "b", "c"};
};

LoaderOptions everything_on(int workers) {
  LoaderOptions options;
  options.batch_size = 16;
  options.seed = 4;
  options.workers = workers;
  options.pipeline.image_size = 16;
  options.pipeline.vertical_flip_probability = 0.5;
  options.pipeline.pixels = {
      .rand_augment = {.operations = 2},
      .color_jitter = {.brightness = 0.4, .contrast = 0.4, .saturation = 0.4, .hue = 0.1},
      .lighting = 0.1,
      .erasing = {.probability = 0.5}};
  options.mix = {.mixup_alpha = 0.8, .cutmix_alpha = 1};
  return options;
}

std::vector<Batch> epoch_of(const LoaderOptions& options, std::size_t first = 0) {
  Loader loader(std::make_shared<SmallImages>(), options);
  loader.start_epoch(3, first);
  std::vector<Batch> batches;
  while (std::optional<Batch> batch = loader.next()) batches.push_back(std::move(*batch));
  return batches;
}

bool same(const Batch& a, const Batch& b) {
  return a.bytes == b.bytes && a.labels == b.labels && a.indices == b.indices &&
         a.partner_labels == b.partner_labels && a.lambda == b.lambda;
}

TEST(MixedBatches, DependOnSeedEpochAndPlaceOnly) {
  const std::vector<Batch> expected = epoch_of(everything_on(0));
  ASSERT_EQ(expected.size(), 5U);
  EXPECT_EQ(expected.back().count, 11);  // odd
  for (const int workers : {1, 4, 16})
    for (const std::size_t first : {0U, 2U, 4U}) {  // resumed after so many batches
      const std::vector<Batch> batches = epoch_of(everything_on(workers), first * 16);
      ASSERT_EQ(batches.size(), 5 - first);
      for (std::size_t i = first; i < 5; ++i)
        EXPECT_TRUE(same(batches[i - first], expected[i])) << workers << " " << i;
    }
  LoaderOptions other = everything_on(2);
  other.seed = 5;
  EXPECT_NE(epoch_of(other)[0].lambda, expected[0].lambda);
}

TEST(MixedBatches, AreTheUnmixedOnesMixed) {
  LoaderOptions options = everything_on(4);
  const std::vector<Batch> mixed = epoch_of(options);
  const MixOptions mix = std::exchange(options.mix, {});
  const std::vector<Batch> plain = epoch_of(options);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_TRUE(plain[i].partner_labels.empty());
    EXPECT_EQ(plain[i].lambda, 1);
    RandomStream random(4, RandomPurpose::mix, 3, i);
    const Mixing mixing = draw_mixing(mix, {16, 16}, random);
    Bytes images(plain[i].bytes.begin(), plain[i].bytes.end());
    mix_images(mixing, images, plain[i].labels.size(), {16, 16});
    EXPECT_TRUE(std::equal(images.begin(), images.end(), mixed[i].bytes.begin(), mixed[i].bytes.end()));
    EXPECT_EQ(mixed[i].labels, plain[i].labels);
    EXPECT_EQ(mixed[i].partner_labels,
              std::vector<std::int64_t>(plain[i].labels.rbegin(), plain[i].labels.rend()));
    EXPECT_EQ(mixed[i].lambda, static_cast<float>(mixing.lambda));
  }
}

TEST(MixedBatches, OfFloatImagesAreRefused) {
  LoaderOptions options = everything_on(0);
  options.pipeline = {.image_size = 16, .augment = Augment::none};
  EXPECT_THROW(Loader(std::make_shared<SmallImages>(Content::floats), options), ValueError);
}

}  // namespace
}  // namespace qtrain::data
