// A checkpoint that opens is the one that was saved.
#include "engine/io/checkpoint_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "engine/core/error.h"
#include "engine/io/atomic_file.h"
#include "engine/io/checksum.h"
#include "tests/io/io_test_support.h"

namespace qtrain {
namespace {

using testing::bytes_of;
using testing::message_of;
using testing::TemporaryFolder;

const std::vector<std::byte> weights = bytes_of("weights of 24 bytes here");
const std::map<std::string, std::string> notes = {{"epoch", "3"}, {"model", "resnet18"}};

void save(const std::filesystem::path& path) {
  save_checkpoint(path, {{"b", "U8", {24}, weights}, {"a", "F32", {2, 3}, weights}, {"e", "I64", {0}, {}}},
                  notes);
}

CheckpointFile from_bytes(std::vector<std::byte> bytes) {
  return CheckpointFile::from(SafetensorsFile::parse(std::move(bytes), "c"));
}

TEST(CheckpointFileTest, RoundTrip) {
  const TemporaryFolder folder;
  save(folder / "c");
  const CheckpointFile file = CheckpointFile::open(folder / "c");
  EXPECT_TRUE(file.verified());
  EXPECT_EQ(file.metadata(), notes);
  EXPECT_EQ(file.entries().size(), 3U);
  EXPECT_TRUE(std::ranges::equal(file.at("a").bytes, weights));
  save(folder / "d");
  EXPECT_EQ(read_file(folder / "c"), read_file(folder / "d"));
  const SafetensorsFile plain = SafetensorsFile::open(folder / "c");  // any reader opens it
  EXPECT_EQ(plain.metadata().at("format"), "qtrain-checkpoint");
  EXPECT_EQ(plain.metadata().at("version"), "1");
}

TEST(CheckpointFileTest, OrderOfTheTensorsDoesNotMatter) {
  const TemporaryFolder folder;
  save_checkpoint(folder / "1", {{"a", "U8", {24}, weights}, {"b", "F32", {6}, weights}}, {});
  save_checkpoint(folder / "2", {{"b", "F32", {6}, weights}, {"a", "U8", {24}, weights}}, {});
  EXPECT_EQ(read_file(folder / "1"), read_file(folder / "2"));
}

// No flipped bit may pass, neither as another checkpoint nor as a file of other origin.
TEST(CheckpointFileTest, EveryFlippedBitIsNoticed) {
  const TemporaryFolder folder;
  save(folder / "c");
  const std::vector<std::byte> whole = read_file(folder / "c");
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::vector<std::byte> damaged = whole;
    damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_THROW(from_bytes(std::move(damaged)), FormatError) << bit;
  }
}

TEST(CheckpointFileTest, EveryTruncationIsNoticed) {
  const TemporaryFolder folder;
  save(folder / "c");
  const std::vector<std::byte> whole = read_file(folder / "c");
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_THROW(from_bytes({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}), FormatError)
        << size;
}

TEST(CheckpointFileTest, DamageIsNamed) {
  const TemporaryFolder folder;
  save(folder / "c");
  std::vector<std::byte> damaged = read_file(folder / "c");
  damaged.back() ^= std::byte{1};
  write_file_atomically(folder / "c", damaged);
  const std::string message = message_of<FormatError>([&] { CheckpointFile::open(folder / "c"); });
  EXPECT_NE(message.find("checksum does not match; the file is damaged"), std::string::npos) << message;
  EXPECT_NE(message.find((folder / "c").string()), std::string::npos) << message;
}

TEST(CheckpointFileTest, PlainFilesOpenUnverified) {
  const TemporaryFolder folder;
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"checksum", "somebody's own"}};
  write_safetensors(folder / "p", {{"a", "U8", {24}, weights}}, metadata);
  const CheckpointFile file = CheckpointFile::open(folder / "p");
  EXPECT_FALSE(file.verified());
  EXPECT_EQ(file.metadata(), metadata);
}

TEST(CheckpointFileTest, MissingChecksumAndOtherVersionsAreRefused) {
  const TemporaryFolder folder;
  write_safetensors(folder / "c", {}, {{"format", "qtrain-checkpoint"}, {"version", "1"}});
  EXPECT_NE(message_of<FormatError>([&] { CheckpointFile::open(folder / "c"); }).find("checksum"),
            std::string::npos);
  write_safetensors(folder / "v", {}, {{"format", "qtrain-checkpoint"}, {"version", "2"}});
  EXPECT_NE(message_of<FormatError>([&] { CheckpointFile::open(folder / "v"); }).find("version"),
            std::string::npos);
}

TEST(CheckpointFileTest, ReservedKeysAreRefused) {
  const TemporaryFolder folder;
  for (const char* key : {"format", "version", "checksum"})
    EXPECT_THROW(save_checkpoint(folder / "c", {}, {{key, "x"}}), ValueError) << key;
  EXPECT_TRUE(folder.names().empty());
}

TEST(CheckpointFileTest, SavingSweepsUpAfterKilledProcesses) {
  const TemporaryFolder folder;
  std::ofstream(folder / "c.tmp.999999999") << "left behind";
  save(folder / "c");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"c"});
}

// Vectors of the XXH3 specification: the empty input without seed.
TEST(ChecksumTest, KnownValueAndStreaming) {
  EXPECT_EQ(checksum_hex({}), "99aa06d3014798d86001c324468d497f");
  RandomStream random(3, RandomPurpose::user);
  const std::vector<std::byte> data = testing::random_bytes(random, 5000);
  for (const std::size_t cut : {0U, 1U, 63U, 240U, 1024U, 4999U}) {
    Checksum checksum;
    checksum.update(std::span(data).first(cut));
    checksum.update(std::span(data).subspan(cut));
    EXPECT_EQ(checksum.hex(), checksum_hex(data)) << cut;
  }
}

TEST(ChecksumTest, FieldsDontRunIntoEachOther) {
  const auto hash = [](std::string_view a, std::string_view b) {
    Checksum checksum;
    checksum.update_field(a);
    checksum.update_field(b);
    return checksum.hex();
  };
  EXPECT_NE(hash("ab", "c"), hash("a", "bc"));
  EXPECT_EQ(hash("ab", "c"), hash("ab", "c"));
}

}  // namespace
}  // namespace qtrain
