#include "cli/tensorboard.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cli/tensorboard.pb.h"
#include "engine/core/error.h"
#include "tests/cli/temporary_folder.h"

namespace qtrain::cli {
namespace {

std::uint64_t little_endian(const std::string& bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i)
    value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes.at(at + i))) << (8 * i);
  return value;
}

// Reads the file by the format's rules; every length and checksum must be right.
std::vector<events::Event> read_events(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<events::Event> result;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = little_endian(bytes, at, 8);
    EXPECT_EQ(little_endian(bytes, at + 8, 4), masked_crc32c(bytes.substr(at, 8)));
    const std::string data = bytes.substr(at + 12, length);
    EXPECT_EQ(little_endian(bytes, at + 12 + length, 4), masked_crc32c(data));
    EXPECT_TRUE(result.emplace_back().ParseFromString(data));
    at += 16 + length;
  }
  return result;
}

TEST(TensorBoard, Crc32cKnownValues) {  // RFC 3720, B.4, and the check value of the CRC catalogue
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(TensorBoard, FileHoldsVersionAndScalars) {
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder.path());
  writer.add(7, {{"train/loss", 1.25F}, {"train/top1", 0.5F}});
  writer.add(8, {{"train/loss", 0.1F}});
  EXPECT_EQ(read_events(writer.path()).size(), 1U);  // buffered until flush
  writer.flush();
  const auto events = read_events(writer.path());
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].step(), 7);
  EXPECT_GT(events[1].wall_time(), 1e9);
  ASSERT_EQ(events[1].summary().value_size(), 2);
  EXPECT_EQ(events[1].summary().value(0).tag(), "train/loss");
  EXPECT_EQ(events[1].summary().value(0).simple_value(), 1.25F);
  EXPECT_EQ(events[1].summary().value(1).tag(), "train/top1");
  EXPECT_EQ(events[2].summary().value(0).simple_value(), 0.1F);
}

TEST(TensorBoard, BytesOnTheWire) {  // field numbers of TensorFlow's protos, without our own reader
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder.path());
  writer.add(300, {{"a", 1.0F}});
  writer.flush();
  const std::string bytes = read_file(writer.path());
  const std::string summary(
      "\x10\xac\x02\x2a\x0a\x0a\x08\x0a\x01"
      "a\x15\x00\x00\x80\x3f",
      15);
  EXPECT_NE(bytes.find("\x1a\x0d"
                       "brain.Event:2"),
            std::string::npos);
  EXPECT_EQ(bytes.substr(bytes.size() - 4 - summary.size(), summary.size()), summary);
}

TEST(TensorBoard, AResumedRunStartsALaterFileAndDropsLaterPoints) {
  const TemporaryFolder folder;
  write_file(folder.file("events.out.tfevents.8999999998.host.1"), "");
  write_file(folder.file("events.out.tfevents.strange"), "");
  const TensorBoardWriter first(folder.path());
  const TensorBoardWriter resumed(folder.path(), 41);
  EXPECT_LT(first.path(), resumed.path());
  EXPECT_LT(folder.file("events.out.tfevents.8999999998"), first.path());
  const auto events = read_events(resumed.path());
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].session_log().status(), events::SessionLog::START);
  EXPECT_EQ(events[1].step(), 42);
}

TEST(TensorBoard, AMissingFolderIsAnError) {
  const TemporaryFolder folder;
  EXPECT_THROW(TensorBoardWriter(folder.file("missing")), IoError);
}

}  // namespace
}  // namespace qtrain::cli
