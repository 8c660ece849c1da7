#include "data/sets/tar_archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/core/error.h"

namespace qtrain::data {
namespace {

constexpr std::size_t block_bytes = 512;
constexpr std::size_t max_name_bytes = 1 << 20;  // of what long names and pax records may take
constexpr std::uint64_t max_size = std::numeric_limits<std::int64_t>::max();

// A field of a header: where it begins and how long it is.
struct Range {
  std::size_t begin;
  std::size_t length;
};
constexpr Range name_field{0, 100};
constexpr Range size_field{124, 12};
constexpr Range checksum_field{148, 8};
constexpr std::size_t type_at = 156;
constexpr Range magic_field{257, 6};
constexpr Range prefix_field{345, 155};

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string_view raw(std::span<const std::byte> header, Range range) {
  return text_of(header.subspan(range.begin, range.length));
}

// Up to the first NUL.
std::string_view terminated(std::string_view text) {
  return text.substr(0, text.find('\0'));
}

// Octal digits between blanks, or a big-endian number behind a first byte of 0x80.
std::optional<std::uint64_t> number(std::string_view field) {
  std::uint64_t value = 0;
  if (static_cast<unsigned char>(field[0]) >= 0x80) {
    for (std::size_t i = 0; i < field.size(); ++i) {
      const auto byte = static_cast<unsigned char>(i == 0 ? field[0] ^ '\x80' : field[i]);
      if (value > max_size >> 8) return std::nullopt;
      value = value << 8 | byte;
    }
    return value;
  }
  const std::size_t first = std::min(field.find_first_not_of(' '), field.size());
  std::size_t last = first;
  for (; last < field.size() && field[last] >= '0' && field[last] <= '7'; ++last)
    value = value << 3 | static_cast<std::uint64_t>(field[last] - '0');
  const bool blanks = field.find_first_not_of(std::string_view(" \0", 2), last) == std::string_view::npos;
  return blanks && last > first ? std::optional(value) : std::nullopt;
}

// The sum of the header's bytes, with blanks in place of the sum. Some old programs added signed bytes: 256
// less for each of 128 or more.
bool checksum_fits(std::span<const std::byte> header) {
  const auto said = number(raw(header, checksum_field));
  std::uint64_t sum = 0;
  std::uint64_t negative = 0;
  const auto add = [&](std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) {
      sum += std::to_integer<unsigned>(b);
      negative += std::to_integer<unsigned>(b >> 7);
    }
  };
  add(header.first(checksum_field.begin));
  add(header.subspan(checksum_field.begin + checksum_field.length));
  sum += std::uint64_t{' '} * checksum_field.length;
  return said && (*said == sum || *said == sum - 256 * negative);
}

// Links, devices, folders and pipes have none, whatever their size says.
bool has_content(const TarMember& member) {
  return member.type < '1' || member.type > '6';
}

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

TarReader::TarReader(std::span<const std::byte> archive, std::string name_for_errors,
                     std::function<void(std::span<const std::byte>)> bring)
    : archive_(archive), name_(std::move(name_for_errors)), bring_(std::move(bring)) {}

void TarReader::fail(std::size_t offset, const std::string& what, const std::string& got,
                     const std::string& hint) const {
  throw FormatError({.where = fmt::format("{}, offset {}", name_, offset),
                     .what = what,
                     .got = got,
                     .expected = "",
                     .hint = hint});
}

std::span<const std::byte> TarReader::block(std::size_t offset) const {
  const auto bytes = archive_.subspan(offset, block_bytes);
  if (bring_) bring_(bytes);
  return bytes;
}

std::span<const std::byte> TarReader::content(const TarMember& member) const {
  const auto bytes = archive_.subspan(member.offset, member.size);
  if (bring_ && !bytes.empty()) bring_(bytes);
  return bytes;
}

bool TarReader::next(TarMember& member) {
  std::string name;
  std::uint64_t size = 0;
  bool has_size = false;
  for (bool described = false;;) {  // records that describe the next member come before it
    if (archive_.size() - position_ < block_bytes)
      fail(position_, "the archive is cut off: no end mark", fmt::format("{} bytes", archive_.size()),
           position_ == 0 ? "is this a tar archive?" : "");
    if (is_zero(block(position_))) {
      if (described) fail(position_, "the archive ends before the member that was announced");
      check_end();
      return false;
    }
    read_header(member);
    const bool long_name = member.type == 'L';
    const bool pax = member.type == 'x' || member.type == 'g';
    if (!long_name && !pax && member.type != 'K') break;
    if (member.size > max_name_bytes)
      fail(member.header, "a name or a pax header too large", fmt::format("{} bytes", member.size));
    // 'g' holds for all members that follow: comments and the like. 'K' is the target of a link.
    if (long_name) name = terminated(text_of(content(member)));
    if (member.type == 'x') read_pax(member, name, size, has_size);
    described = true;
  }
  if (!name.empty()) member.name = std::move(name);
  if (has_size && has_content(member)) set_size(member, size);  // the header has only its lower digits, or 0
  if (member.type == '\0' || member.type == '7') member.type = '0';
  if (member.type == '0' && member.name.ends_with('/')) member.type = '5';  // before there were types
  return true;
}

void TarReader::read_header(TarMember& member) {
  const auto header = block(position_);
  if (position_ == 0 && text_of(header).starts_with("\x1f\x8b"))
    fail(0, "the archive is compressed", "gzip", "images are compressed already: unpack it with gunzip");
  if (!checksum_fits(header))
    fail(position_, "a header with a wrong checksum", "", position_ == 0 ? "is this a tar archive?" : "");
  member.header = position_;
  member.offset = position_ + block_bytes;
  member.type = raw(header, {type_at, 1})[0];
  member.name = terminated(raw(header, name_field));
  const std::string_view prefix = terminated(raw(header, prefix_field));
  // GNU's magic is "ustar " and a blank; it keeps other things in the place of the prefix.
  if (raw(header, magic_field) == std::string_view("ustar\0", 6) && !prefix.empty())
    member.name = std::string(prefix) + "/" + member.name;
  const auto size = number(raw(header, size_field));
  if (!size) fail(position_, "a size that is no number", "'" + member.name + "'");
  set_size(member, has_content(member) ? *size : 0);
}

void TarReader::set_size(TarMember& member, std::uint64_t size) {
  const std::size_t room = archive_.size() - member.offset;
  if (size > room)
    fail(member.header, "a member reaches beyond the archive's end",
         fmt::format("'{}', {} bytes", member.name, size), "the archive may be cut off");
  member.size = static_cast<std::size_t>(size);
  // Where the padding of the last member is missing, so is the end mark.
  const std::size_t padding = (block_bytes - member.size % block_bytes) % block_bytes;
  position_ = member.offset + std::min(room, member.size + padding);
}

// Records are "LENGTH KEY=VALUE\n", the length that of the whole record in decimal digits.
void TarReader::read_pax(const TarMember& records, std::string& name, std::uint64_t& size,
                         bool& has_size) const {
  std::string_view text = text_of(content(records));
  while (!text.empty() && text[0] != '\0') {
    std::size_t length = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    const auto digits = static_cast<std::size_t>(end - text.data());
    const bool fits = error == std::errc() && length <= text.size() && length > digits + 1 &&
                      text[digits] == ' ' && text[length - 1] == '\n';
    if (!fits) fail(records.header, "a pax header with a wrong record");
    const std::string_view record = text.substr(digits + 1, length - digits - 2);
    const std::size_t equals = record.find('=');
    if (equals == std::string_view::npos) fail(records.header, "a pax header with a wrong record");
    const std::string_view value = record.substr(equals + 1);
    if (record.substr(0, equals) == "path") name = value;
    if (record.substr(0, equals) == "size") {
      const auto [last, wrong] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (wrong != std::errc() || last != value.data() + value.size())
        fail(records.header, "a pax header with a size that is no number");
      has_size = true;
    }
    text.remove_prefix(length);
  }
}

// Archives end with two blocks of zeros, filled up with more of them.
void TarReader::check_end() const {
  for (std::size_t at = position_; at < archive_.size(); at += block_bytes) {
    const auto bytes = archive_.subspan(at, std::min(block_bytes, archive_.size() - at));
    if (bring_) bring_(bytes);
    if (!is_zero(bytes))
      fail(at, "bytes behind the archive's end", "", "archives put together with cat can't be read");
  }
}

}  // namespace qtrain::data
