#include "data/sets/tar.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "data/loader/loader.h"
#include "data/sets/open.h"
#include "data/sets/tar_archive.h"
#include "data/sets/tar_samples.h"
#include "data/sets/tar_shards.h"
#include "tests/data/support.h"
#include "tests/data/tar_writer.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> span_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::vector<TarMember> members_of(const std::string& archive) {
  TarReader reader(span_of(archive), "t.tar");
  std::vector<TarMember> members;
  for (TarMember member; reader.next(member);) members.push_back(member);
  return members;
}

std::string content(const std::string& archive, const TarMember& member) {
  return archive.substr(member.offset, member.size);
}

std::string broken(const std::string& archive) {
  return message_of<FormatError>([&] { members_of(archive); });
}

std::string refused(const std::string& archive) {
  return message_of<FormatError>([&] { read_tar_samples(span_of(archive), "t.tar"); });
}

// ---- archives ----

TEST(TarReader, ReadsEveryKindOfHeader) {
  const std::string long_name = std::string(150, 'd') + "/" + std::string(120, 'f') + ".jpg";
  const std::string base256 = std::string("\x80", 1) + std::string(10, '\0') + "\x05";
  TarWriter tar;
  tar.add("plain", "one");
  tar.add("old", "two", {.type = '\0', .magic = std::string(8, '\0')});
  tar.add("below", "three", {.prefix = "a/b"});
  tar.add("gnu", "four", {.magic = std::string("ustar  \0", 8), .prefix = "not a prefix"});
  tar.add("big", "fives", {.size = base256});
  tar.add("blanks", "six", {.size = "          3 "});
  tar.add("././@LongLink", long_name + '\0', {.type = 'L'}).add("cut", "seven");
  tar.add("pax", TarWriter::pax("mtime", "1.5") + TarWriter::pax("path", long_name + "x"), {.type = 'x'});
  tar.add("cut", "eight");
  tar.add("pax", TarWriter::pax("size", "4"), {.type = 'x'}).add("sized", "nine", {.claimed = 0});
  tar.add("pax", TarWriter::pax("comment", "hello"), {.type = 'g'}).add("empty", "");
  tar.add("folder/", "", {.type = '5'}).add("link", "", {.type = '2', .claimed = 77}).add("last", "x");
  tar.add("ancient_folder/", "", {.type = '\0'});
  const std::string archive = tar.finished();
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"plain", "one"},  {"old", "two"},         {"a/b/below", "three"}, {"gnu", "four"},
      {"big", "fives"},  {"blanks", "six"},      {long_name, "seven"},   {long_name + "x", "eight"},
      {"sized", "nine"}, {"empty", ""},          {"folder/", ""},        {"link", ""},
      {"last", "x"},     {"ancient_folder/", ""}};
  const std::vector<TarMember> members = members_of(archive);
  ASSERT_EQ(members.size(), expected.size());
  for (std::size_t i = 0; i < members.size(); ++i) {
    EXPECT_EQ(members[i].name, expected[i].first);
    EXPECT_EQ(content(archive, members[i]), expected[i].second) << members[i].name;
  }
  EXPECT_EQ(members[1].type, '0');
  EXPECT_EQ(members[10].type, '5');
  EXPECT_EQ(members[11].type, '2');
  EXPECT_EQ(members[13].type, '5');
}

TEST(TarReader, BrokenArchivesNameTheOffset) {
  const std::string good = TarWriter().add("a", "content").finished();
  EXPECT_EQ(broken(""),
            "[t.tar, offset 0] the archive is cut off: no end mark; got 0 bytes; is this a tar archive?");
  EXPECT_TRUE(contains(broken(std::string(2000, 'x')), "offset 0] a header with a wrong checksum"));
  EXPECT_TRUE(contains(broken("\x1f\x8b" + std::string(600, 'x')), "compressed"));
  EXPECT_TRUE(
      contains(broken(TarWriter().add("a", "b").unfinished()), "offset 1024] the archive is cut off"));
  EXPECT_TRUE(contains(broken(good + good), "bytes behind the archive's end"));
  EXPECT_TRUE(contains(broken(TarWriter().add("a", "b").add("c", "d", {.size = "12345678x90"}).finished()),
                       "offset 1024] a size that is no number; got 'c'"));
  EXPECT_TRUE(contains(broken(TarWriter().add("a", "b", {.size = std::string(12, '\xff')}).finished()),
                       "a size that is no number"));
  EXPECT_TRUE(
      contains(broken(TarWriter().add("a", "b", {.claimed = 5000}).finished()), "beyond the archive's end"));
  EXPECT_TRUE(contains(broken(TarWriter().add("a", "b", {.claimed = 8'000'000'000}).finished()), "beyond"));
  const auto pax = [](const std::string& records) {
    return broken(TarWriter().add("p", records, {.type = 'x'}).add("a", "b").finished());
  };
  for (const char* record :
       {"x path=a\n", "99 path=a\n", "10 path=abc", "3 \n", "9 pathabc\n", "-1 path=a\n", "0 "})
    EXPECT_TRUE(contains(pax(record), "wrong record")) << record;
  EXPECT_TRUE(contains(pax(TarWriter::pax("size", "99999")), "beyond the archive's end"));
  EXPECT_TRUE(contains(pax(TarWriter::pax("size", "-1")), "size that is no number"));
  EXPECT_TRUE(contains(broken(TarWriter().add("p", TarWriter::pax("path", "x"), {.type = 'x'}).finished()),
                       "ends before the member"));
}

// ---- samples ----

TEST(TarSamples, MembersOfOneKeyAreASample) {
  const std::string archive = TarWriter()
                                  .add("./0001.cls", "7\n")
                                  .add("0002.jpg", "B")
                                  .add("./0001.JPEG", "A")
                                  .add("0002.json", R"({"label": 8, "width": 4})")
                                  .add("dir.with.dots/0001.png", "C")
                                  .add("dir.with.dots/0001.cls.txt", " 9 ")
                                  .add("0003.json", R"({"cls": 10})")
                                  .add("0003.ppm", "D")
                                  .add("0004.cls", "11")
                                  .add("0004.json", "not looked at {")
                                  .add("0004.jpg", "E")
                                  .add("0004.txt", "a caption")
                                  .add("README", "")
                                  .add("meta.json", "{}")
                                  .add("._0004.jpg", "a Mac's")
                                  .add("other.jpg/", "", {.type = '5'})
                                  .add("note", "", {.type = '2'})
                                  .finished();
  const auto samples = read_tar_samples(span_of(archive), "t.tar");
  ASSERT_EQ(samples.size(), 5U);
  const std::vector<std::string> names = {"./0001.JPEG", "0002.jpg", "dir.with.dots/0001.png", "0003.ppm",
                                          "0004.jpg"};
  for (std::size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(samples[i].name, names[i]);
    EXPECT_EQ(samples[i].label, 7 + i);
    EXPECT_EQ(archive.substr(samples[i].offset, samples[i].length),
              std::string(1, static_cast<char>('A' + i)));
  }
}

TEST(TarSamples, WhatIsNoSampleIsRefused) {
  const auto with = [](const std::function<void(TarWriter&)>& more) {
    TarWriter tar;
    tar.add("0.jpg", "A").add("0.cls", "1");
    more(tar);
    return refused(tar.finished());
  };
  EXPECT_EQ(with([](TarWriter& t) { t.add("1.jpg", "B"); }),
            "[t.tar, offset 2048] an image without a label; got '1.jpg'");
  EXPECT_TRUE(
      contains(with([](TarWriter& t) { t.add("1.cls", "2"); }), "a label without an image; got '1.cls'"));
  EXPECT_TRUE(contains(with([](TarWriter& t) { t.add("0.jpg", "B"); }), "two members of a kind"));
  EXPECT_TRUE(contains(with([](TarWriter& t) { t.add("0.png", "B"); }), "'0.png' beside '0.jpg'"));
  EXPECT_TRUE(contains(with([](TarWriter& t) { t.add("./0.cls", "3"); }), "two members of a kind"));
  for (const char* label : {"", "cat", "-1", "1.5", "100000", "99999999999", "1 2"}) {
    const std::string message = with([&](TarWriter& t) { t.add("1.jpg", "B").add("1.cls", label); });
    EXPECT_TRUE(contains(message, "offset 3072] a label that is no number; got '1.cls'")) << message;
  }
  for (const char* label : {"", "7", "[7]", "{", "{}", R"({"label": -1})", R"({"label": "7"})",
                            R"({"label": 7.0})", R"({"label": 100000})", R"({"label": null, "cls": 1})"}) {
    const std::string message = with([&](TarWriter& t) { t.add("1.jpg", "B").add("1.json", label); });
    EXPECT_TRUE(contains(message, "a label that is no number; got '1.json'")) << message;
  }
  EXPECT_TRUE(contains(with([](TarWriter& t) { t.add("1.jpg", "", {.type = '1'}); }), "is no file"));
  EXPECT_TRUE(contains(refused(TarWriter().add("a", "b").finished()), "no samples"));
  EXPECT_TRUE(contains(refused(std::string(1024, '\0')), "no samples"));
}

// ---- data sets ----

// Shards and an ImageFolder with the same images in the same order.
class TarTest : public ::testing::Test {
 protected:
  TarTest() {
    for (const std::string split : {"train", "val"}) {
      for (int shard = 0; shard < 3; ++shard) {
        TarWriter tar;
        for (int i = 0; i < 4; ++i) {
          const auto bytes = encode_jpeg(noise_image(20 + i, 24 - shard, static_cast<std::uint64_t>(i)), 90);
          const std::string name = std::to_string(shard) + std::to_string(i);
          tar.add(name + ".cls", std::to_string(shard));
          tar.add(name + ".jpg", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
          put(folder_.path() / "images" / split / std::to_string(shard) / (name + ".jpg"), bytes);
        }
        put(root() / split / ("shard-" + std::to_string(shard) + ".tar"), bytes_of(tar.finished()));
      }
    }
  }

  fs::path root() const { return folder_.path() / "shards"; }
  std::shared_ptr<const Dataset> open(Split split) const {
    return open_dataset("tar:" + root().string(), split);
  }

  TemporaryFolder folder_;
};

TEST_F(TarTest, GivesTheBatchesOfTheFolder) {
  for (const std::string& spec :
       {"tar:" + root().string(), root().string(), root().string() + "/{train,val}/shard-{0..2}.tar"}) {
    for (const bool train : {true, false}) {
      LoaderOptions options;
      options.batch_size = 5;
      options.seed = 3;
      options.shuffle = train;
      options.pipeline.train = train;
      options.pipeline.image_size = 16;
      const Split split = train ? Split::train : Split::val;
      Loader a(open_dataset((folder_.path() / "images").string(), split), options);
      Loader b(open_dataset(spec, split), options);
      a.start_epoch(1);
      b.start_epoch(1);
      while (const auto expected = a.next()) {
        const auto batch = b.next();
        ASSERT_TRUE(batch.has_value());
        EXPECT_TRUE(batch->bytes == expected->bytes);
        EXPECT_EQ(batch->labels, expected->labels);
      }
      EXPECT_FALSE(b.next().has_value());
    }
  }
}

TEST_F(TarTest, NamesOfSamplesAndClasses) {
  EXPECT_EQ(open(Split::val)->describe(5), (root() / "val/shard-1.tar: 11.jpg").string());
  EXPECT_EQ(open(Split::val)->class_names(), (std::vector<std::string>{"0", "1", "2"}));
  put(root() / "classes.txt", bytes_of("cat\r\ndog\n\nowl\nyak"));
  EXPECT_EQ(open(Split::train)->class_names(), (std::vector<std::string>{"cat", "dog", "owl", "yak"}));
  put(root() / "classes.txt", bytes_of("cat\ndog\n"));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { open(Split::train); }),
                       "shard-2.tar: 20.jpg] a label without a name in classes.txt; got 2; expected 0 to 1"));
}

// Labels that only one split has are classes of both.
TEST_F(TarTest, BothSplitsHaveTheSameClasses) {
  put(root() / "train/shard-9.tar", bytes_of(TarWriter().add("a.jpg", "x").add("a.cls", "6").finished()));
  EXPECT_EQ(open(Split::train)->classes(), 7);
  EXPECT_EQ(open(Split::val)->classes(), 7);
}

TEST_F(TarTest, ShardsAreFoundByFolderOrName) {
  const fs::path flat = folder_.path() / "flat";
  for (const char* name :
       {"set-train-00.tar", "set-train-01.tar", "set-val-0.tar", "set-test-0.tar", "train.txt"})
    put(flat / name, bytes_of(TarWriter().add("a.jpg", "x").add("a.cls", "1").finished()));
  const std::string at = flat.string();
  const auto names = [](const std::string& where, Split split) {
    std::string all;
    for (const fs::path& path : find_tar_shards(where, split)) all += path.filename().string() + " ";
    return all;
  };
  EXPECT_EQ(names(at, Split::train), "set-train-00.tar set-train-01.tar ");
  EXPECT_EQ(names(at, Split::val), "set-val-0.tar ");
  EXPECT_EQ(names(at + "/*.tar", Split::train), "set-train-00.tar set-train-01.tar ");
  EXPECT_EQ(names(at + "/set-{train-{00..01},val-0}.tar", Split::train),
            "set-train-00.tar set-train-01.tar ");
  EXPECT_EQ(names(at + "/set-{train-{00..01},val-0}.tar", Split::val), "set-val-0.tar ");
  EXPECT_EQ(names(at + "/set-train-{01..02}.tar", Split::train), "set-train-01.tar set-train-02.tar ");
  EXPECT_TRUE(
      contains(message_of<IoError>([&] { open_tar(at + "/set-{train,val}-0{1..2}.tar", Split::train); }),
               "set-train-02.tar] can't open the file"));
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { find_tar_shards(at + "/set-t*.tar", Split::val); }), "no val"));
  EXPECT_TRUE(
      contains(message_of<ValueError>([&] { find_tar_shards(at + "/{5..2}.tar", Split::val); }), "{5..2}"));
  EXPECT_TRUE(
      contains(message_of<ValueError>([&] { find_tar_shards("{0..99999999}.tar", Split::val); }), "range"));
  EXPECT_TRUE(contains(message_of<IoError>([&] { open_dataset("tar:/no/such", Split::train); }), "missing"));
  EXPECT_TRUE(contains(message_of<IoError>([&] { open_dataset("/no/such.tar", Split::train); }), "missing"));
  EXPECT_TRUE(is_tar_folder(flat));
  EXPECT_TRUE(is_tar_folder(root()));
  // Archives beside the folders that they were unpacked to.
  put(folder_.path() / "images/ILSVRC2012_img_train.tar", bytes_of("anything"));
  EXPECT_FALSE(is_tar_folder(folder_.path() / "images"));
  EXPECT_EQ(open_dataset((folder_.path() / "images").string(), Split::val)->size(), 12U);
}

TEST_F(TarTest, TooFewClasses) {
  for (const char* split : {"train", "val"})
    put(folder_.path() / "one" / split / "0.tar",
        bytes_of(TarWriter().add("a.jpg", "x").add("a.cls", "0").finished()));
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { open_tar((folder_.path() / "one").string(), Split::val); }),
               "too few classes"));
}

TEST_F(TarTest, BrokenShardsNameThemselves) {
  put(root() / "train/shard-1.tar", bytes_of("this is text"));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { open(Split::train); }), "train/shard-1.tar, offset 0]"));
  put(root() / "train/shard-1.tar", {});
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { open(Split::train); }), "shard-1.tar] the file is empty"));
  put(root() / "train/shard-1.tar",
      bytes_of(TarWriter().add("a.jpg", "no image").add("a.cls", "1").finished()));
  const auto set = open(Split::train);
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { load_sample(*set, 4); }), "shard-1.tar: a.jpg] not an image"));
}

// Whatever one bit of a header or a cut does: an error of the right type, or the same samples.
TEST(TarDamage, IsFoundOrHarmless) {
  TarWriter tar;
  tar.add("0.jpg", "image").add("0.cls", "1");
  tar.add("p", TarWriter::pax("path", std::string(200, 'n') + ".jpg"), {.type = 'x'}).add("n.jpg", "other");
  tar.add("l", std::string(200, 'n') + ".cls", {.type = 'L'}).add("n.cls", "2", {.prefix = "ignored"});
  const std::string whole = tar.finished();
  const auto samples_text = [](const std::string& archive) {
    std::string all;
    try {
      for (const TarSample& s : read_tar_samples(span_of(archive), "t.tar"))
        all += s.name + std::to_string(s.label) + archive.substr(s.offset, s.length) + "\n";
    } catch (const FormatError& error) {
      EXPECT_TRUE(contains(error.what(), "t.tar, offset ")) << error.what();
      all.clear();
    }
    return all;
  };
  const std::string expected = samples_text(whole);
  ASSERT_FALSE(expected.empty());
  std::vector<std::size_t> headers = {0, 1024, 2048, 3072, 4096, 5120};
  std::size_t found = 0;
  for (const std::size_t header : headers) {
    for (std::size_t at = header; at < header + 512; ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string archive = whole;
        archive[at] = static_cast<char>(archive[at] ^ (1 << bit));
        const std::string text = samples_text(archive);
        EXPECT_TRUE(text.empty() || text == expected) << at << " bit " << bit;
        found += text.empty() ? 1 : 0;
      }
    }
  }
  EXPECT_GT(found, headers.size() * 512 * 8 * 99 / 100);
  for (std::size_t size = 0; size < whole.size() - 512; ++size) {
    if (size % 512 > 2 && size % 512 < 510 && size % 64 != 0) continue;
    EXPECT_EQ(samples_text(whole.substr(0, size)), "") << size;
  }
}

}  // namespace
}  // namespace qtrain::data
