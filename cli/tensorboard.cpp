#include "cli/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "cli/field.h"
#include "cli/tensorboard.pb.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[byte] = crc;
  }
  return table;
}

constexpr std::array<std::uint32_t, 256> crc_table = make_crc_table();

template <class Integer>
std::string little_endian(Integer value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xff);
  return bytes;
}

std::string record(const std::string& data) {
  const std::string length = little_endian(static_cast<std::uint64_t>(data.size()));
  return length + little_endian(masked_crc32c(length)) + data + little_endian(masked_crc32c(data));
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

const std::string prefix = "events.out.tfevents.";

// TensorBoard reads files in the order of their names. The time in ours is later than all others', even when
// a run is resumed within a second or the clock was set back.
std::int64_t next_stamp(const std::string& folder) {
  std::int64_t stamp = static_cast<std::int64_t>(wall_time());
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) != 0) continue;
    const std::size_t end = name.find('.', prefix.size());
    const auto other = to_integer(std::string_view(name).substr(
        prefix.size(), end == std::string::npos ? std::string::npos : end - prefix.size()));
    if (other && *other < 9'000'000'000) stamp = std::max(stamp, *other + 1);
  }
  if (error) throw IoError({folder, "can't read the folder", error.message(), "", ""});
  return stamp;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  return name.data();
}

}  // namespace

TensorBoardWriter::TensorBoardWriter(const std::string& folder, std::int64_t resumed_step)
    : path_(fmt::format("{}/{}{:010}.{}.{}", folder, prefix, next_stamp(folder), host_name(), ::getpid())),
      file_(std::make_unique<AppendFile>(path_)) {
  events::Event version;
  version.set_wall_time(wall_time());
  version.set_file_version("brain.Event:2");
  buffer_ += record(version.SerializeAsString());
  if (resumed_step > 0) {
    events::Event start;
    start.set_wall_time(wall_time());
    start.set_step(resumed_step + 1);
    start.mutable_session_log()->set_status(events::SessionLog::START);
    buffer_ += record(start.SerializeAsString());
  }
  flush();
}

void TensorBoardWriter::add(std::int64_t step, const std::vector<Scalar>& scalars) {
  events::Event event;
  event.set_wall_time(wall_time());
  event.set_step(step);
  for (const Scalar& scalar : scalars) {
    auto* value = event.mutable_summary()->add_value();
    value->set_tag(scalar.tag);
    value->set_simple_value(scalar.value);
  }
  buffer_ += record(event.SerializeAsString());
}

void TensorBoardWriter::flush() {
  file_->append(buffer_);
  buffer_.clear();
}

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<unsigned char>(c)) & 0xffu];
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

}  // namespace qtrain::cli
