// What is found in ImageNet and what is made to hurt: every odd file ends as docs/data.md says, whatever the
// pipeline decodes of it. Either its pixels are used, or it is reported with its path and the reason, and
// with BadImages::skip replaced by the same other sample whatever the number of workers.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <optional>

#include "data/loader/loader.h"
#include "data/sets/open.h"
#include "tests/data/jpeg_flavours.h"
#include "tests/data/ordinary_user.h"
#include "tests/data/png_fixture.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

constexpr int width = 90;
constexpr int height = 70;

// One colour, so that every crop of it is known.
constexpr std::array<std::uint8_t, 3> colour{200, 120, 40};

std::vector<std::uint8_t> samples(std::initializer_list<int> of_pixel) {
  std::vector<std::uint8_t> all;
  for (int i = 0; i < width * height; ++i)
    for (const int sample : of_pixel) all.push_back(static_cast<std::uint8_t>(sample));
  return all;
}

Bytes jpeg(const JpegFlavour& flavour = {}) {
  return make_jpeg(width, height, samples({colour[0], colour[1], colour[2]}), flavour);
}

Bytes noisy_jpeg(const JpegFlavour& flavour = {}) {
  return make_jpeg(width, height, noise_image(width, height, 1).rgb, flavour);
}

Bytes cut(Bytes bytes, int percent) {
  bytes.resize(bytes.size() * static_cast<std::size_t>(percent) / 100);
  return bytes;
}

// Where marker FF `code` stands, from `from` on.
std::size_t find_marker(const Bytes& bytes, int code, std::size_t from = 0) {
  for (std::size_t i = from; i + 1 < bytes.size(); ++i)
    if (bytes[i] == std::byte{0xFF} && bytes[i + 1] == static_cast<std::byte>(code)) return i;
  ADD_FAILURE() << "no such marker";
  return 0;
}

// A JPEG without its APP0 segment.
Bytes without_jfif() {
  Bytes bytes = jpeg();
  const std::size_t at = find_marker(bytes, 0xE0);
  const auto length =
      2 + (std::to_integer<std::size_t>(bytes[at + 2]) << 8) + std::to_integer<std::size_t>(bytes[at + 3]);
  bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at),
              bytes.begin() + static_cast<std::ptrdiff_t>(at + length));
  return bytes;
}

// The frame header says another precision (bits) or another size.
Bytes with_precision(int bits) {
  Bytes bytes = jpeg();
  bytes[find_marker(bytes, 0xC0) + 4] = static_cast<std::byte>(bits);
  return bytes;
}
Bytes with_size(int rows, int columns) {
  Bytes bytes = jpeg();
  const std::size_t at = find_marker(bytes, 0xC0) + 5;
  const int values[] = {rows >> 8, rows & 255, columns >> 8, columns & 255};
  for (std::size_t k = 0; k < 4; ++k) bytes[at + k] = static_cast<std::byte>(values[k]);
  return bytes;
}

Bytes lossless_jpeg() {
  Bytes bytes = jpeg();
  bytes[find_marker(bytes, 0xC0) + 1] = std::byte{0xC3};
  return bytes;
}

// A restart marker in the middle is overwritten.
Bytes with_damaged_restart() {
  Bytes bytes = noisy_jpeg({.restart_interval = 2});
  for (std::size_t i = bytes.size() / 2; i + 1 < bytes.size(); ++i)
    if (bytes[i] == std::byte{0xFF} && (bytes[i + 1] & std::byte{0xF8}) == std::byte{0xD0}) {
      bytes[i] = std::byte{0};
      return bytes;
    }
  ADD_FAILURE() << "no restart marker";
  return bytes;
}

Bytes png(int depth) {
  std::vector<std::uint8_t> rows;
  for (int y = 0; y < height; ++y) {
    rows.push_back(0);
    for (int x = 0; x < width; ++x)
      for (const std::uint8_t value : colour) {
        rows.push_back(value);
        if (depth == 16) rows.push_back(77);  // dropped
      }
  }
  return make_png(width, height, depth, 2, {}, rows);
}

struct Oddity {
  std::string name;
  Bytes content;
  std::string reason;      // "" where it is used
  bool everywhere = true;  // else only what decodes the whole image sees it
};

std::ostream& operator<<(std::ostream& out, const Oddity& oddity) {
  return out << oddity.name;
}

std::vector<Oddity> oddities() {
  const std::vector<std::uint8_t> broken_exif = {'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0xFF, 0xFF, 0xFF};
  // Adobe's inverted inks without black: the samples are R, G, B.
  const std::vector<std::uint8_t> inks = samples({colour[0], colour[1], colour[2], 255});
  Bytes trailing = jpeg();
  trailing.resize(trailing.size() + 3000, std::byte{0x55});
  std::vector<Oddity> all = {
      {"png_named_jpeg", png(8), ""},
      {"png_of_16_bits", png(16), ""},
      {"cmyk", make_jpeg(width, height, inks, {.colour = JpegColour::cmyk}), ""},
      {"ycck", make_jpeg(width, height, inks, {.colour = JpegColour::ycck}), ""},
      {"rgb_components", jpeg({.colour = JpegColour::rgb}), ""},
      {"progressive", jpeg({.progressive = true}), ""},
      {"restart_markers", jpeg({.restart_interval = 2}), ""},
      {"broken_exif", jpeg({.exif_segment = broken_exif}), ""},
      {"no_jfif_marker", without_jfif(), ""},
      {"bytes_behind_the_end", trailing, ""},
      {"restart_marker_damaged", with_damaged_restart(), "damaged JPEG data", false},
      {"empty", {}, "the image file is empty"},
      {"text", bytes_of("<html>404 Not Found</html>"), "text that begins with '<html>404"},
      {"webp", bytes_of("RIFF1234WEBPVP8 "), "WebP data"},
      {"dimensions_of_65500", with_size(65500, 65500), "image size out of range; got 65500 x 65500"},
      {"no_rows", with_size(0, 100), "damaged JPEG data"},
      {"twelve_bits", with_precision(12), "damaged JPEG data"},
      {"lossless", lossless_jpeg(), "damaged JPEG data"},
      {"zeros", Bytes(5000), "bytes 00 00"},
      {"only_the_first_marker", bytes_of("\xFF\xD8\xFF"), "damaged JPEG data"},
  };
  for (const int percent : {10, 50, 90, 99})
    for (const bool progressive : {false, true})
      all.push_back({"truncated_at_" + std::to_string(percent) + (progressive ? "_progressive" : ""),
                     cut(noisy_jpeg({.progressive = progressive}), percent), "damaged JPEG data"});
  all.push_back({"truncated_png", cut(png(8), 90), "a truncated file"});
  return all;
}

enum class View { training, evaluation };

LoaderOptions options_of(View view, DecodeMode mode, BadImages policy, int workers) {
  LoaderOptions options;
  options.batch_size = 1;
  options.seed = 4;
  options.shuffle = false;
  options.workers = workers;
  options.pipeline.image_size = 24;
  options.pipeline.train = view == View::training;
  options.pipeline.decode = mode;
  options.bad_images = policy;
  return options;
}

class OddFiles : public testing::TestWithParam<Oddity> {
 protected:
  void SetUp() override {
    for (const char* file : {"train/a/2.jpg", "train/b/3.jpg", "train/b/4.jpg", "val/a/1.jpg", "val/b/1.jpg"})
      put(root() / file, encode_jpeg(noise_image(40, 30, static_cast<std::uint64_t>(file[8])), 90));
    put(odd(), GetParam().content);
    set_ = open_dataset(root().string(), Split::train);
  }
  const fs::path& root() const { return folder_.path(); }
  fs::path odd() const { return root() / "train/a/1.JPEG"; }  // the first sample

  // Where the pipelines see the whole image or find the fault without looking at it.
  static bool sees_the_fault(View view, DecodeMode mode) {
    return GetParam().everywhere || (view == View::evaluation || mode == DecodeMode::exact);
  }

  TemporaryFolder folder_;
  std::shared_ptr<const Dataset> set_;
};

TEST_P(OddFiles, AreUsedOrReported) {
  const Oddity& oddity = GetParam();
  for (const View view : {View::training, View::evaluation})
    for (const DecodeMode mode : {DecodeMode::fast, DecodeMode::exact}) {
      Loader loader(set_, options_of(view, mode, BadImages::fail, 2));
      loader.start_epoch(0);
      if (oddity.reason.empty()) {
        const std::optional<Batch> batch = loader.next();
        ASSERT_TRUE(batch.has_value());
        ASSERT_EQ(batch->bytes.size(), 24U * 24 * 3);
        for (std::size_t i = 0; i < batch->bytes.size(); ++i)
          ASSERT_NEAR(batch->bytes[i], colour[i % 3], 3) << i;
        while (loader.next()) {
        }
        EXPECT_EQ(loader.bad_count(), 0U);
      } else if (sees_the_fault(view, mode)) {
        const std::string message = message_of<FormatError>([&] { loader.next(); });
        EXPECT_TRUE(contains(message, "[" + odd().string() + "] ")) << message;
        EXPECT_TRUE(contains(message, oddity.reason)) << message;
        EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0);
      }
    }
}

TEST_P(OddFiles, AreReplacedTheSameWayByAnyNumberOfWorkers) {
  const Oddity& oddity = GetParam();
  for (const DecodeMode mode : {DecodeMode::fast, DecodeMode::exact}) {
    std::vector<std::vector<std::uint8_t>> expected;
    for (const int workers : {0, 1, 4}) {
      Loader loader(set_, options_of(View::evaluation, mode, BadImages::skip, workers));
      loader.start_epoch(3);
      std::vector<std::vector<std::uint8_t>> batches;
      std::vector<std::int64_t> indices;
      while (std::optional<Batch> batch = loader.next()) {
        batches.emplace_back(batch->bytes.begin(), batch->bytes.end());
        indices.push_back(batch->indices[0]);
      }
      if (expected.empty()) expected = batches;
      EXPECT_EQ(batches, expected) << workers << " workers";
      ASSERT_EQ(batches.size(), 4U);
      const bool bad = !oddity.reason.empty();
      EXPECT_EQ(loader.bad_count(), bad ? 1U : 0U);
      EXPECT_EQ(indices[0] == 0, !bad);
      if (!bad) continue;
      ASSERT_EQ(loader.bad_images().size(), 1U);
      EXPECT_EQ(loader.bad_images()[0].index, 0U);
      EXPECT_TRUE(contains(loader.bad_images()[0].reason, odd().string()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, OddFiles, testing::ValuesIn(oddities()),
                         [](const auto& test) { return test.param.name; });

// ---- what isn't a matter of content

class OddPlaces : public testing::Test {
 protected:
  OddPlaces() {
    for (const char* file : {"train/a/1.jpg", "train/a/2.jpg", "train/b/3.jpg", "val/a/1.jpg", "val/b/1.jpg"})
      put(root() / file, encode_jpeg(noise_image(40, 30, 7), 90));
  }
  const fs::path& root() const { return folder_.path(); }
  std::shared_ptr<const Dataset> open() const { return open_dataset(root().string(), Split::train); }

  // The first sample is reported by an IoError with this reason, and replaced where that is asked for.
  void expect_unreadable(const std::shared_ptr<const Dataset>& set, const std::string& reason) const {
    Loader failing(set, options_of(View::training, DecodeMode::fast, BadImages::fail, 2));
    failing.start_epoch(0);
    const std::string message = message_of<IoError>([&] { failing.next(); });
    EXPECT_TRUE(contains(message, set->describe(0)) && contains(message, reason)) << message;
    Loader skipping(set, options_of(View::training, DecodeMode::fast, BadImages::skip, 2));
    skipping.start_epoch(0);
    std::size_t batches = 0;
    while (skipping.next()) ++batches;
    EXPECT_EQ(batches, set->size());
    EXPECT_EQ(skipping.bad_count(), 1U);
  }

  TemporaryFolder folder_;
};

TEST_F(OddPlaces, AFolderNamedLikeAnImageIsAFolder) {
  fs::create_directories(root() / "train/a/0.JPEG");
  EXPECT_EQ(open()->size(), 3U);
  put(root() / "train/a/0.JPEG/deep.jpg", encode_jpeg(solid_image(8, 8, 9), 90));
  const auto set = open();
  EXPECT_EQ(set->size(), 4U);
  EXPECT_EQ(set->describe(2), (root() / "train/a/0.JPEG/deep.jpg").string());
}

TEST_F(OddPlaces, AFileThatDisappears) {
  const auto set = open();
  fs::remove(root() / "train/a/1.jpg");
  expect_unreadable(set, "can't open the file; got No such file");
}

TEST_F(OddPlaces, AFileThatBecomesAFolder) {
  const auto set = open();
  fs::remove(root() / "train/a/1.jpg");
  fs::create_directories(root() / "train/a/1.jpg");
  expect_unreadable(set, "a folder where a file should be");
}

TEST_F(OddPlaces, ALinkToItself) {
  fs::remove(root() / "train/a/1.jpg");
  fs::create_symlink(root() / "train/a/1.jpg", root() / "train/a/1.jpg");
  expect_unreadable(open(), "Too many levels of symbolic links");
}

TEST_F(OddPlaces, ANamedPipeIsNotWaitedFor) {
  fs::remove(root() / "train/a/1.jpg");
  ASSERT_EQ(::mkfifo((root() / "train/a/1.jpg").c_str(), 0666), 0);
  expect_unreadable(open(), "not a regular file");
}

TEST_F(OddPlaces, AFileThatMayNotBeRead) {
  for (const auto& entry : fs::recursive_directory_iterator(root()))
    fs::permissions(entry.path(), fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
  fs::permissions(root(), fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
  fs::permissions(root() / "train/a/1.jpg", fs::perms::none);
  const OrdinaryUser user;
  if (!user.is_one()) GTEST_SKIP() << "the superuser may read everything";
  expect_unreadable(open(), "can't open the file; got Permission denied");
}

TEST_F(OddPlaces, AFolderThatMayNotBeListed) {
  fs::permissions(root(), fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
  fs::permissions(root() / "train/a", fs::perms::none);
  std::string message;
  bool tried = false;
  {
    const OrdinaryUser user;
    tried = user.is_one();
    if (tried) message = message_of<IoError>([&] { open(); });
  }
  fs::permissions(root() / "train/a", fs::perms::owner_all);
  if (!tried) GTEST_SKIP() << "the superuser may list everything";
  EXPECT_TRUE(contains(message, (root() / "train/a").string()) && contains(message, "Permission denied"))
      << message;
}

}  // namespace
}  // namespace qtrain::data
