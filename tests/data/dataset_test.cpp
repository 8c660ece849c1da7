#include "data/sets/open.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <set>

#include "data/loader/sample_reader.h"
#include "data/sets/imagenet.h"
#include "engine/core/error.h"
#include "engine/io/safetensors.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

template <class E>
std::string open_error(const std::string& spec, Split split = Split::train) {
  return message_of<E>([&] { open_dataset(spec, split); });
}

// ---- ImageFolder ----

class ImageFolderTest : public ::testing::Test {
 protected:
  void add(const std::string& file, std::uint8_t level = 100) {
    put(root() / file, encode_jpeg(solid_image(8, 6, level), 95));
  }
  void add_small_set() {
    for (const char* file : {"train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"})
      add(file);
  }
  const fs::path& root() const { return folder_.path(); }

  TemporaryFolder folder_;
};

TEST_F(ImageFolderTest, OrderIsTorchvisions) {
  add_small_set();
  add("train/cat/10.jpg", 10);
  add("train/cat/2.jpg", 20);
  add("train/cat/a/deep/0.jpg", 30);
  add("train/cat/a-b/0.jpg", 40);
  add("train/cat/no_extension", 50);
  add("train/cat/.hidden.jpg");
  add("train/.hidden/1.jpg");
  fs::create_directories(root() / "train/cat/folder.JPEG");
  const auto set = open_dataset(root().string(), Split::train);
  EXPECT_EQ(set->class_names(), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(set->classes(), 2);
  const std::vector<std::string> expected = {
      "train/cat/1.jpg",     "train/cat/10.jpg",       "train/cat/2.jpg", "train/cat/no_extension",
      "train/cat/a-b/0.jpg", "train/cat/a/deep/0.jpg", "train/dog/1.jpg"};
  ASSERT_EQ(set->size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(set->describe(i), (root() / expected[i]).string());
  EXPECT_EQ(load_sample(*set, 0).label, 0);
  EXPECT_EQ(load_sample(*set, 6).label, 1);
  EXPECT_NEAR(load_sample(*set, 4).image.rgb[0], 40, 1);
  EXPECT_EQ(load_sample(*set, 4).image.size(), (Size{8, 6}));
  EXPECT_EQ(open_dataset(root().string(), Split::val)->size(), 2U);
}

TEST_F(ImageFolderTest, ContentDecides) {
  add_small_set();
  put(root() / "train/cat/1.jpg", bytes_of("P6 1 1 255\nabc"));
  EXPECT_EQ(load_sample(*open_dataset(root().string(), Split::train), 0).image.rgb[0], 'a');
}

TEST_F(ImageFolderTest, UnreadableFilesNameThemselves) {
  add_small_set();
  put(root() / "train/cat/2.jpg", bytes_of("A shopping list: eggs, flour"));
  put(root() / "train/cat/3.jpg", {});
  fs::create_symlink(root() / "nowhere", root() / "train/cat/4.jpg");
  const auto set = open_dataset(root().string(), Split::train);
  ASSERT_EQ(set->size(), 5U);
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { load_sample(*set, 1); }), "train/cat/2.jpg] not an image"));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { load_sample(*set, 2); }),
                       "train/cat/3.jpg] the image file is empty"));
  EXPECT_TRUE(
      contains(message_of<IoError>([&] { load_sample(*set, 3); }), "train/cat/4.jpg] can't open the file"));
}

TEST_F(ImageFolderTest, LinksToFoldersAreFollowedButNotForever) {
  add_small_set();
  add("elsewhere/7.jpg");
  fs::create_directory_symlink(root() / "elsewhere", root() / "train/cat/linked");
  EXPECT_EQ(open_dataset(root().string(), Split::train)->size(), 3U);
  fs::create_directory_symlink(root() / "train/cat", root() / "train/cat/loop");
  EXPECT_TRUE(contains(open_error<FormatError>(root().string()), "symbolic link"));
}

TEST_F(ImageFolderTest, BrokenLayouts) {
  const std::string path = root().string();
  EXPECT_TRUE(contains(open_error<IoError>(path + "/missing"), "folder is missing"));
  EXPECT_TRUE(contains(open_error<FormatError>(path), "no folder 'train'"));
  fs::create_directories(root() / "train");
  EXPECT_TRUE(contains(open_error<FormatError>(path), "no class folders"));
  add("train/cat/1.jpg");
  EXPECT_TRUE(contains(open_error<FormatError>(path), "only 'cat'"));
  add("train/dog/1.jpg");
  EXPECT_TRUE(contains(open_error<FormatError>(path), "no folder 'val'"));
  add("val/cat/1.jpg");
  add("val/cow/1.jpg");
  EXPECT_TRUE(contains(open_error<FormatError>(path), "'dog' in train/ but not in val/"));
  fs::create_directories(root() / "val/dog");
  EXPECT_TRUE(contains(open_error<FormatError>(path), "'cow' in val/ but not in train/"));
  fs::remove_all(root() / "val/cow");
  EXPECT_TRUE(contains(open_error<FormatError>(path, Split::val), "val/dog] a class without images"));
  EXPECT_EQ(open_dataset(path, Split::train)->size(), 2U);
  put(root() / "file", bytes_of("x"));
  EXPECT_TRUE(contains(open_error<IoError>(path + "/file"), "not a folder"));
}

// ---- ImageNet ----

class NamedClasses : public Dataset {
 public:
  NamedClasses(std::size_t classes, std::size_t size, const std::string& odd = "") : size_(size) {
    for (std::size_t i = 0; i < classes; ++i) names_.push_back(fmt::format("n{:08}", 1440764 + i));
    if (!odd.empty()) names_.back() = odd;
  }
  std::size_t size() const override { return size_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Content content() const override { return Content::files; }
  void fetch(std::size_t, Record&) const override {}
  std::string describe(std::size_t) const override { return ""; }

 private:
  std::size_t size_;
  std::vector<std::string> names_;
};

TEST(ImageNetTest, ADifferenceIsToldForWhatLooksLikeImageNetOnly) {
  const auto text = [](const Dataset& set, Split split) { return imagenet_difference(set, split); };
  EXPECT_EQ(text(NamedClasses(1000, 1'281'167), Split::train), "");
  EXPECT_EQ(text(NamedClasses(1000, 50'000), Split::val), "");
  EXPECT_EQ(text(NamedClasses(1000, 1'281'100), Split::train),
            "training images: 1,281,100, 67 fewer than ImageNet's 1,281,167");
  EXPECT_EQ(text(NamedClasses(1000, 51'234), Split::val),
            "validation images: 51,234, 1,234 more than ImageNet's 50,000");
  EXPECT_EQ(text(NamedClasses(999, 7), Split::train), "");
  for (const char* odd : {"n0144076", "x01440764", "n0144076x", "n014407640"})
    EXPECT_EQ(text(NamedClasses(1000, 7, odd), Split::train), "") << odd;
}

// ---- names of datasets ----

TEST(OpenDataset, UnknownKindSuggestsTheNearest) {
  EXPECT_TRUE(contains(open_error<ValueError>("cifar1O:/data"), "did you mean 'cifar10'?"));
  EXPECT_TRUE(contains(open_error<ValueError>("tensor:/data"), "did you mean 'tensors'?"));
  EXPECT_TRUE(contains(open_error<ValueError>("wordnet:/data"), "unknown kind of dataset"));
  EXPECT_TRUE(contains(open_error<IoError>("demoo"), "did you mean 'demo'?"));
  EXPECT_TRUE(contains(open_error<ValueError>(""), "empty"));
  EXPECT_TRUE(contains(open_error<ValueError>("cifar10:"), "no path"));
  EXPECT_TRUE(contains(open_error<IoError>("/no/such:folder"), "missing"));
  EXPECT_TRUE(contains(open_error<IoError>("cifar10:/no/such"), "missing"));
  EXPECT_TRUE(contains(open_error<IoError>("tensors:/no/such"), "/no/such"));
}

// ---- CIFAR ----

std::vector<std::byte> cifar_records(int count, int label_bytes, int first_label) {
  std::vector<std::byte> bytes;
  for (int i = 0; i < count; ++i) {
    if (label_bytes == 2) bytes.push_back(std::byte{19});  // the coarse label
    bytes.push_back(static_cast<std::byte>(first_label + i));
    for (int plane = 0; plane < 3; ++plane) {
      for (int p = 0; p < 1024; ++p) bytes.push_back(static_cast<std::byte>(plane * 80 + i + p % 32));
    }
  }
  return bytes;
}

TEST(CifarTest, ReadsBothKinds) {
  const TemporaryFolder folder;
  const fs::path inner = folder.path() / "cifar-10-batches-bin";
  for (int i = 1; i <= 5; ++i) {
    put(inner / ("data_batch_" + std::to_string(i) + ".bin"), cifar_records(2, 1, i));
  }
  put(inner / "test_batch.bin", cifar_records(3, 1, 7));
  put(inner / "batches.meta.txt", bytes_of("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n"));
  const auto train = open_dataset("cifar10:" + folder.path().string(), Split::train);
  EXPECT_EQ(train->size(), 10U);
  EXPECT_EQ(train->class_names()[9], "j");
  EXPECT_EQ(train->image_size(), (Size{32, 32}));
  const Sample sample = load_sample(*train, 5);  // the second image of data_batch_3
  EXPECT_EQ(sample.label, 4);
  EXPECT_EQ(sample.image.rgb[0], 1);
  EXPECT_EQ(sample.image.rgb[1], 81);
  EXPECT_EQ(sample.image.rgb[2], 161);
  EXPECT_EQ(sample.image.rgb[3 * 33], 2);  // second row, second column
  EXPECT_TRUE(contains(train->describe(5), "data_batch_3.bin, image 1"));
  EXPECT_EQ(open_dataset("cifar10:" + inner.string(), Split::val)->size(), 3U);

  put(folder.path() / "hundred/train.bin", cifar_records(2, 2, 98));
  const auto hundred = open_dataset("cifar100:" + (folder.path() / "hundred").string(), Split::train);
  EXPECT_EQ(hundred->classes(), 100);
  EXPECT_EQ(load_sample(*hundred, 1).label, 99);
  EXPECT_EQ(hundred->class_names()[99], "99");
}

TEST(CifarTest, BrokenFiles) {
  const TemporaryFolder folder;
  const std::string spec = "cifar100:" + folder.path().string();
  EXPECT_TRUE(contains(open_error<IoError>(spec), "train.bin] can't open the file"));
  put(folder.path() / "train.bin", {});
  EXPECT_TRUE(contains(open_error<FormatError>(spec), "got 0 bytes"));
  std::vector<std::byte> bytes = cifar_records(2, 2, 0);
  bytes.pop_back();
  put(folder.path() / "train.bin", bytes);
  EXPECT_TRUE(contains(open_error<FormatError>(spec), "incomplete"));
  put(folder.path() / "train.bin", cifar_records(2, 2, 99));
  EXPECT_TRUE(contains(open_error<FormatError>(spec), "image 1] label out of range; got 100"));
}

// ---- tensors ----

template <class T>
TensorToWrite tensor(const std::string& name, const char* dtype, std::vector<std::int64_t> shape,
                     const std::vector<T>& values) {
  return {name, dtype, std::move(shape), std::as_bytes(std::span(values))};
}

class TensorTest : public ::testing::Test {
 protected:
  void write(std::vector<TensorToWrite> tensors, const std::map<std::string, std::string>& metadata = {}) {
    write_safetensors(path(), std::move(tensors), metadata);
  }
  fs::path path() const { return folder_.path() / "set.safetensors"; }
  std::string spec() const { return "tensors:" + path().string(); }

  TemporaryFolder folder_;
  const std::vector<std::uint8_t> pixels_ = [] {
    std::vector<std::uint8_t> pixels;
    for (int i = 0; i < 2 * 3 * 2 * 2; ++i) pixels.push_back(static_cast<std::uint8_t>(i));
    return pixels;
  }();
  const std::vector<std::int64_t> labels_ = {2, 0};
  const std::vector<std::int32_t> short_labels_ = {1, 4};
  const std::vector<std::int64_t> images_shape_ = {2, 3, 2, 2};
};

TEST_F(TensorTest, BytesAndSplits) {
  write({tensor("images", "U8", images_shape_, pixels_), tensor("labels", "I64", {2}, labels_)});
  for (const Split split : {Split::train, Split::val}) {
    const auto set = open_dataset(spec(), split);
    EXPECT_EQ(set->size(), 2U);
    EXPECT_EQ(set->classes(), 3);
    EXPECT_EQ(set->image_size(), (Size{2, 2}));
    const Sample sample = load_sample(*set, 1);
    EXPECT_EQ(sample.label, 0);
    EXPECT_EQ(sample.image.rgb, (std::vector<std::uint8_t>{12, 16, 20, 13, 17, 21, 14, 18, 22, 15, 19, 23}));
  }
  write({tensor("images", "U8", images_shape_, pixels_), tensor("labels", "I64", {2}, labels_),
         tensor("val_images", "U8", images_shape_, pixels_),
         tensor("val_labels", "I32", {2}, short_labels_)});
  EXPECT_EQ(load_sample(*open_dataset(spec(), Split::train), 1).label, 0);
  EXPECT_EQ(load_sample(*open_dataset(spec(), Split::val), 1).label, 4);
  EXPECT_EQ(open_dataset(spec(), Split::train)->classes(), 5);
}

TEST_F(TensorTest, FloatsAndStatedClasses) {
  std::vector<float> values(pixels_.begin(), pixels_.end());
  for (float& value : values) value = value / 4 - 1;
  write({tensor("images", "F32", images_shape_, values), tensor("labels", "I64", {2}, labels_)},
        {{"classes", "10"}});
  const auto set = open_dataset(spec(), Split::train);
  EXPECT_EQ(set->content(), Content::floats);
  EXPECT_EQ(set->classes(), 10);
  const Sample sample = load_sample(*set, 0);
  ASSERT_EQ(sample.values.size(), 12U);
  EXPECT_EQ(sample.values[1], 4.0F / 4 - 1);
}

TEST_F(TensorTest, BrokenFiles) {
  const auto images = tensor("images", "U8", images_shape_, pixels_);
  const auto labels = tensor("labels", "I64", {2}, labels_);
  const auto error = [&](std::vector<TensorToWrite> tensors,
                         const std::map<std::string, std::string>& m = {}) {
    write(std::move(tensors), m);
    return open_error<FormatError>(spec());
  };
  const std::vector<std::int64_t> negative = {0, -1};
  const std::vector<std::int64_t> absurd = {0, std::int64_t{1} << 40};
  const std::vector<std::uint8_t> none;
  EXPECT_TRUE(contains(error({labels}), "no tensor 'images'; got labels"));
  EXPECT_TRUE(contains(error({images}), "no tensor 'labels'"));
  EXPECT_TRUE(contains(error({images, tensor("labels", "I64", {2}, negative)}), "labels[1] = -1"));
  EXPECT_TRUE(contains(error({images, tensor("labels", "I64", {2}, absurd)}), "label out of range"));
  EXPECT_TRUE(contains(error({images, labels}, {{"classes", "2"}}), "labels[0] = 2"));
  EXPECT_TRUE(contains(error({images, labels}, {{"classes", "ten"}}), "'ten'"));
  EXPECT_TRUE(
      contains(error({images, tensor("labels", "I64", {1}, std::vector<std::int64_t>{1})}), "expected [2]"));
  EXPECT_TRUE(
      contains(error({images, tensor("labels", "U8", {2}, std::vector<std::uint8_t>{1, 1})}), "got U8 [2]"));
  EXPECT_TRUE(
      contains(error({tensor("images", "U8", {2, 2, 2, 3}, pixels_), labels}), "got U8 [2, 2, 2, 3]"));
  EXPECT_TRUE(contains(error({tensor("images", "I8", images_shape_, pixels_), labels}), "got I8"));
  EXPECT_TRUE(contains(error({tensor("images", "U8", {0, 3, 2, 2}, none), labels}), "at least one image"));
  EXPECT_TRUE(contains(error({tensor("images", "U8", {8, 3}, pixels_), labels}), "got U8 [8, 3]"));
  put(path(), bytes_of("not a tensor file"));
  EXPECT_TRUE(contains(open_error<FormatError>(spec()), "set.safetensors"));
}

}  // namespace
}  // namespace qtrain::data
