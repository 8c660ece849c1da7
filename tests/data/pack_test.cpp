#include "data/sets/pack.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "data/loader/loader.h"
#include "data/packing/build_pack.h"
#include "data/sets/mapped_file.h"
#include "data/sets/open.h"
#include "engine/io/checksum.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr Split splits[] = {Split::train, Split::val};

std::vector<std::byte> file_bytes(const fs::path& path) {
  std::vector<std::byte> bytes;
  read_file(path, bytes);
  return bytes;
}

std::vector<std::byte> ppm(const Image& image) {
  std::vector<std::byte> bytes =
      bytes_of("P6 " + std::to_string(image.width) + " " + std::to_string(image.height) + " 255\n");
  const auto pixels = std::as_bytes(std::span(image.rgb));
  bytes.insert(bytes.end(), pixels.begin(), pixels.end());
  return bytes;
}

// A folder of images of several sizes and kinds, and packs of it.
class PackTest : public ::testing::Test {
 protected:
  PackTest() {
    std::uint64_t seed = 0;
    for (const char* name : {"train/cat", "train/dog", "train/owl", "val/cat", "val/dog", "val/owl"}) {
      for (int i = 0; i < 5; ++i, ++seed) {
        const Image image =
            noise_image(24 + static_cast<int>(seed % 7), 30 - static_cast<int>(seed % 5), seed);
        const fs::path path = root() / name / (std::to_string(i) + ".jpg");
        put(path, i == 3 ? ppm(image) : encode_jpeg(image, 85));
      }
    }
  }

  fs::path root() const { return folder_.path() / "images"; }
  fs::path file(const std::string& name) const { return folder_.path() / name; }

  std::optional<PackSummary> build(const fs::path& path, const PackSettings& settings = {},
                                   const std::function<bool()>& stop = {}) const {
    return build_pack(*open_dataset(root().string(), Split::train),
                      *open_dataset(root().string(), Split::val), path, settings, {}, stop);
  }

  // What the folder holds beside the images.
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      if (entry.path() != root()) names.push_back(entry.path().filename().string());
    return names;
  }

  TemporaryFolder folder_;
};

TEST_F(PackTest, HoldsTheFolderByteForByte) {
  const auto summary = build(file("a.pack"));
  ASSERT_TRUE(summary.has_value());
  EXPECT_EQ(summary->train, 15U);
  EXPECT_EQ(summary->val, 15U);
  EXPECT_EQ(summary->resized + summary->bad_count, 0U);
  EXPECT_EQ(summary->pack_bytes, fs::file_size(file("a.pack")));
  for (const std::string& spec : {file("a.pack").string(), "pack:" + file("a.pack").string()}) {
    for (const Split split : splits) {
      const auto folder = open_dataset(root().string(), split);
      const auto pack = open_dataset(spec, split);
      ASSERT_EQ(pack->size(), folder->size());
      EXPECT_EQ(pack->class_names(), folder->class_names());
      EXPECT_EQ(pack->content(), Content::files);
      Record a;
      Record b;
      std::uint64_t bytes = 0;
      for (std::size_t i = 0; i < pack->size(); ++i) {
        folder->fetch(i, a);
        pack->fetch(i, b);
        EXPECT_TRUE(std::equal(a.file.begin(), a.file.end(), b.file.begin(), b.file.end())) << i;
        EXPECT_EQ(a.label, b.label);
        EXPECT_EQ(b.name, file("a.pack").string() + ": " + fs::relative(a.name, root()).string());
        EXPECT_EQ(b.name, pack->describe(i));
        EXPECT_TRUE(b.buffer.empty()) << "nothing is copied";
        bytes += b.file.size();
      }
      EXPECT_GT(bytes, 0U);
    }
  }
}

TEST_F(PackTest, GivesTheBatchesOfTheFolder) {
  ASSERT_TRUE(build(file("a.pack")));
  for (const std::uint64_t seed : {0U, 1U, 77U}) {
    for (const bool train : {true, false}) {
      LoaderOptions options;
      options.batch_size = 4;
      options.seed = seed;
      options.shuffle = train;
      options.pipeline.train = train;
      options.pipeline.image_size = 16;
      const Split split = train ? Split::train : Split::val;
      Loader a(open_dataset(root().string(), split), options);
      Loader b(open_dataset(file("a.pack").string(), split), options);
      for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
        a.start_epoch(epoch);
        b.start_epoch(epoch);
        for (int batch = 0; batch < 4; ++batch) {
          const auto from_folder = a.next();
          const auto from_pack = b.next();
          ASSERT_TRUE(from_folder && from_pack);
          EXPECT_TRUE(from_folder->bytes == from_pack->bytes) << seed;
          EXPECT_EQ(from_folder->labels, from_pack->labels);
          EXPECT_EQ(from_folder->indices, from_pack->indices);
        }
        EXPECT_FALSE(b.next().has_value());
      }
    }
  }
}

TEST_F(PackTest, DoesNotDependOnTheNumberOfWorkers) {
  for (const int side : {0, 16}) {
    std::vector<std::byte> first;
    for (const int workers : {1, 2, 4}) {
      ASSERT_TRUE(build(file("w.pack"), {.shorter_side = side, .workers = workers}));
      const std::vector<std::byte> bytes = file_bytes(file("w.pack"));
      if (first.empty()) first = bytes;
      EXPECT_TRUE(bytes == first) << workers << " workers, shorter side " << side;
    }
  }
}

TEST_F(PackTest, ResizesWhatIsLarger) {
  const std::vector<std::byte> small = ppm(noise_image(40, 16, 1));
  put(root() / "train/cat/small.ppm", small);
  put(root() / "train/cat/wide.ppm", ppm(smooth_image(90, 32)));
  const auto summary = build(file("s.pack"), {.shorter_side = 16, .quality = 95});
  ASSERT_TRUE(summary.has_value());
  EXPECT_EQ(summary->resized, 31U);
  const auto pack = open_dataset(file("s.pack").string(), Split::train);
  Record record;
  pack->fetch(5, record);
  EXPECT_TRUE(contains(record.name, "small.ppm"));
  EXPECT_TRUE(std::equal(small.begin(), small.end(), record.file.begin(), record.file.end()));
  const Image wide = load_sample(*pack, 6).image;
  EXPECT_EQ(wide.size(), (Size{45, 16}));
  const Image expected = smooth_image(45, 16);
  for (std::size_t i = 0; i < expected.rgb.size(); ++i) EXPECT_NEAR(wide.rgb[i], expected.rgb[i], 8);
  for (std::size_t i = 0; i < pack->size(); ++i) {
    const Size size = load_sample(*pack, i).image.size();
    EXPECT_EQ(std::min(size.width, size.height), 16);
  }
}

TEST_F(PackTest, AnUnreadableImageEndsItOrIsLeftOut) {
  put(root() / "train/dog/2.jpg", bytes_of("no image"));
  put(root() / "val/cat/0.jpg", {});
  for (const int workers : {1, 4}) {
    const std::string message = message_of<FormatError>([&] { build(file("b.pack"), {.workers = workers}); });
    EXPECT_TRUE(contains(message, "train/dog/2.jpg] not an image")) << message;
    EXPECT_TRUE(files().empty());
  }
  const auto summary = build(file("b.pack"), {.workers = 3, .bad_images = BadImages::skip});
  ASSERT_TRUE(summary.has_value());
  EXPECT_EQ(summary->train, 14U);
  EXPECT_EQ(summary->val, 14U);
  EXPECT_EQ(summary->bad_count, 2U);
  ASSERT_EQ(summary->bad.size(), 2U);
  EXPECT_TRUE(contains(summary->bad[0].reason, "dog/2.jpg") && contains(summary->bad[1].reason, "empty"));
  const auto pack = open_dataset(file("b.pack").string(), Split::train);
  EXPECT_TRUE(contains(pack->describe(7), "train/dog/3.jpg")) << pack->describe(7);
}

TEST_F(PackTest, AStoppedOneLeavesNothing) {
  for (const int after : {1, 7, 29, 30}) {
    int asked = 0;
    EXPECT_FALSE(build(file("c.pack"), {.workers = 2}, [&] { return ++asked >= after; }).has_value());
    EXPECT_TRUE(files().empty()) << after;
  }
}

TEST_F(PackTest, OnlyFilesCanBePacked) {
  std::vector<std::byte> records(2 * 3074, std::byte{5});
  put(folder_.path() / "cifar/train.bin", records);
  put(folder_.path() / "cifar/test.bin", records);
  const std::string spec = "cifar100:" + (folder_.path() / "cifar").string();
  const auto cifar = open_dataset(spec, Split::train);
  EXPECT_TRUE(contains(message_of<ValueError>([&] { build_pack(*cifar, *cifar, file("d.pack"), {}); }),
                       "doesn't consist of image files"));
  EXPECT_FALSE(fs::exists(file("d.pack")));
}

TEST_F(PackTest, APackOfAPackIsTheSame) {
  ASSERT_TRUE(build(file("a.pack")));
  const std::string spec = file("a.pack").string();
  ASSERT_TRUE(
      build_pack(*open_dataset(spec, Split::train), *open_dataset(spec, Split::val), file("b.pack"), {}));
  EXPECT_TRUE(file_bytes(file("a.pack")) == file_bytes(file("b.pack")));
}

// ---- damage ----

// All that a pack's data sets give, as text; throws what they throw.
std::string content_of(const fs::path& path) {
  std::string all;
  for (const Split split : splits) {
    const auto pack = open_pack(path, split);
    for (const std::string& name : pack->class_names()) all += name + "\n";
    Record record;
    for (std::size_t i = 0; i < pack->size(); ++i) {
      pack->fetch(i, record);
      all += record.name + " " + std::to_string(record.label) + " " + checksum_hex(record.file) + "\n";
    }
  }
  return all;
}

// The content, or "" after an error of the right type that names the file.
std::string content_or_error(const fs::path& path) {
  try {
    return content_of(path);
  } catch (const FormatError& error) {
    EXPECT_TRUE(contains(error.what(), path.filename().string())) << error.what();
  } catch (const IoError& error) {
    EXPECT_TRUE(contains(error.what(), path.filename().string())) << error.what();
  }
  return "";
}

TEST_F(PackTest, DamageAnywhereIsFoundOrHarmless) {
  ASSERT_TRUE(build(file("a.pack"), {.shorter_side = 8, .quality = 20}));
  const std::vector<std::byte> whole = file_bytes(file("a.pack"));
  const std::string content = content_of(file("a.pack"));
  std::vector<bool> means_something(whole.size(), true);
  const PackIndex index(whole, "a.pack");
  std::size_t end = pack_header_bytes;
  for (std::size_t i = 0; i < 30; ++i) {  // zeros between records don't
    const PackEntry entry = i < 15 ? index.entry(Split::train, i) : index.entry(Split::val, i - 15);
    for (; end < entry.offset; ++end) means_something[end] = false;
    end = entry.offset + entry.length;
  }
  for (; end % pack_alignment != 0; ++end) means_something[end] = false;
  // In place: to write thousands of files anew would take a disk its time.
  std::fstream damaged(file("a.pack"), std::ios::in | std::ios::out | std::ios::binary);
  const auto set = [&](std::size_t at, std::byte value) {
    damaged.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(value)).flush();
  };
  for (std::size_t at = 0; at < whole.size(); ++at) {
    if (at > 1000 && at + 2500 < whole.size() && at % 7 != 0) continue;  // one record is like another
    set(at, whole[at] ^ static_cast<std::byte>(1U << at % 8));
    const std::string found = content_or_error(file("a.pack"));
    EXPECT_EQ(found, means_something[at] ? "" : content) << at;
    set(at, whole[at]);
  }
  EXPECT_EQ(content_or_error(file("a.pack")), content);
}

TEST_F(PackTest, CutOffAnywhereIsFound) {
  ASSERT_TRUE(build(file("a.pack"), {.shorter_side = 8, .quality = 20}));
  const std::vector<std::byte> whole = file_bytes(file("a.pack"));
  for (std::size_t size = whole.size(); size-- > 0;) {
    if (size > 200 && size + 3000 < whole.size() && size % 13 != 0) continue;
    fs::resize_file(file("a.pack"), size);
    EXPECT_EQ(content_or_error(file("a.pack")), "") << size;
  }
  std::vector<std::byte> longer = whole;
  longer.push_back(std::byte{0});
  write_file(file("a.pack"), longer);
  EXPECT_EQ(content_or_error(file("a.pack")), "");
}

// Changes the index and makes its checksum right again.
void forge(const fs::path& path, const std::function<void(PackFooter&, std::span<std::byte> index)>& change) {
  std::vector<std::byte> bytes = file_bytes(path);
  PackFooter footer;
  std::memcpy(&footer, bytes.data() + bytes.size() - sizeof footer, sizeof footer);
  const auto begin = static_cast<std::size_t>(footer.index_offset);
  change(footer, std::span(bytes).subspan(begin));
  std::memcpy(bytes.data() + bytes.size() - sizeof footer, &footer, sizeof footer);
  const std::size_t covered = bytes.size() - sizeof footer + offsetof(PackFooter, checksum) - begin;
  footer.checksum = checksum_64(std::span(bytes).subspan(begin, covered));
  std::memcpy(bytes.data() + bytes.size() - sizeof footer, &footer, sizeof footer);
  write_file(path, bytes);
}

TEST_F(PackTest, AnIndexThatClaimsNonsenseIsRefused) {
  const auto refused = [&](const std::string& part,
                           const std::function<void(PackFooter&, std::span<std::byte>)>& change) {
    build(file("f.pack"));
    forge(file("f.pack"), change);
    const std::string message = message_of<FormatError>([&] { open_pack(file("f.pack"), Split::train); });
    EXPECT_TRUE(contains(message, part)) << message;
  };
  const auto entry = [](std::size_t i, const std::function<void(PackEntry&)>& change) {
    return [=](PackFooter&, std::span<std::byte> index) {
      PackEntry e;
      std::memcpy(&e, index.data() + i * sizeof e, sizeof e);
      change(e);
      std::memcpy(index.data() + i * sizeof e, &e, sizeof e);
    };
  };
  constexpr std::uint64_t huge = ~std::uint64_t{0};
  refused("record 3 ", entry(3, [](PackEntry& e) { e.offset = huge; }));
  refused("record 3 ", entry(3, [](PackEntry& e) { e.offset = 0; }));
  refused("record 29 ", entry(29, [](PackEntry& e) { e.length = 0xFFFFFFFF; }));
  refused("record 2 ", entry(2, [](PackEntry& e) { e.label = 3; }));
  refused("record 4 ", entry(4, [](PackEntry& e) { e.name_end = 1; }));
  refused("record 4 ", entry(4, [](PackEntry& e) { e.name_end = huge; }));
  refused("fill their place", entry(29, [](PackEntry& e) { e.name_end -= 1; }));
  refused("don't fill it", [](PackFooter& f, std::span<std::byte>) { f.train_images = huge; });
  refused("don't fill it", [](PackFooter& f, std::span<std::byte>) { f.val_images += 1; });
  refused("class names", [](PackFooter& f, std::span<std::byte>) { f.classes += 1; });
  refused("class names", [](PackFooter& f, std::span<std::byte>) {
    f.classes_bytes -= 2;
    f.names_bytes += 2;
  });
  refused("no images", [](PackFooter& f, std::span<std::byte>) {
    f.train_images += f.val_images;
    f.val_images = 0;
  });
}

TEST_F(PackTest, AnotherVersionAndOtherFiles) {
  ASSERT_TRUE(build(file("a.pack")));
  std::vector<std::byte> bytes = file_bytes(file("a.pack"));
  bytes[pack_magic.size()] = std::byte{2};
  write_file(file("a.pack"), bytes);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { open_pack(file("a.pack"), Split::val); }),
                       "another version; got 2; expected 1"));
  put(file("text"), bytes_of("qtrain"));
  put(file("nothing"), {});
  EXPECT_FALSE(is_pack(file("text")) || is_pack(file("nothing")) || is_pack(root()));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { open_pack(file("text"), Split::val); }), "not a pack"));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { open_pack(file("nothing"), Split::val); }), "empty"));
  EXPECT_TRUE(contains(message_of<IoError>([&] { open_pack(root(), Split::val); }), "a folder"));
  EXPECT_TRUE(contains(message_of<IoError>([&] { open_pack(file("none"), Split::val); }), "can't open"));
}

TEST_F(PackTest, ADamagedRecordObeysBadImages) {
  ASSERT_TRUE(build(file("a.pack")));
  std::vector<std::byte> bytes = file_bytes(file("a.pack"));
  bytes[pack_alignment + 40] ^= std::byte{1};  // of the first record
  write_file(file("a.pack"), bytes);
  LoaderOptions options;
  options.batch_size = 15;
  options.pipeline.image_size = 16;
  const auto pack = open_dataset(file("a.pack").string(), Split::train);
  Loader strict(pack, options);
  strict.start_epoch(0);
  const std::string message = message_of<FormatError>([&] { strict.next(); });
  EXPECT_TRUE(contains(message, "a.pack: train/cat/0.jpg] the record is damaged")) << message;
  options.bad_images = BadImages::skip;
  Loader lenient(pack, options);
  lenient.start_epoch(0);
  EXPECT_TRUE(lenient.next().has_value());
  EXPECT_EQ(lenient.bad_count(), 1U);
}

// Without the question beforehand, the process would end by SIGBUS.
TEST_F(PackTest, AFileShortenedInUseIsAnError) {
  if (::madvise(nullptr, 0, MADV_POPULATE_READ) != 0) GTEST_SKIP() << "the system can't be asked";
  put(root() / "train/cat/large.ppm", ppm(noise_image(90, 90, 9)));
  ASSERT_TRUE(build(file("a.pack")));
  const auto pack = open_dataset(file("a.pack").string(), Split::train);
  Record record;
  pack->fetch(5, record);
  fs::resize_file(file("a.pack"), 10'000);
  for (std::size_t i = 0; i < pack->size(); ++i) {
    EXPECT_TRUE(
        contains(message_of<IoError>([&] { pack->fetch(i, record); }), "a.pack] can't read the file"));
  }
  put(file("b"), std::vector<std::byte>(100'000));
  const MappedFile mapped(file("b"));
  fs::resize_file(file("b"), 20'000);
  mapped.bring(mapped.bytes().first(20'000));
  EXPECT_TRUE(contains(message_of<IoError>([&] { mapped.bring(mapped.bytes().subspan(30'000, 10)); }),
                       "shortened while in use"));
}

}  // namespace
}  // namespace qtrain::data
