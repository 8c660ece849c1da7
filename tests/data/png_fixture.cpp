#include "tests/data/png_fixture.h"

#include "tests/data/support.h"

namespace qtrain::data {
namespace {

using Bytes = std::vector<std::byte>;

void append(Bytes& bytes, std::initializer_list<int> values) {
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
}

void append_big_endian(Bytes& bytes, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::byte>(value >> shift & 255));
}

}  // namespace

Bytes make_png(int width, int height, int depth, int colour_type, const Bytes& palette,
               const std::vector<std::uint8_t>& rows_with_filter_bytes) {
  Bytes png = bytes_of("\x89PNG\r\n\x1A\n");
  const auto chunk = [&](const char* type, const Bytes& content) {
    append_big_endian(png, static_cast<std::uint32_t>(content.size()));
    const Bytes name = bytes_of(type);
    png.insert(png.end(), name.begin(), name.end());
    png.insert(png.end(), content.begin(), content.end());
    append_big_endian(png, 0);
  };
  Bytes header;
  append_big_endian(header, static_cast<std::uint32_t>(width));
  append_big_endian(header, static_cast<std::uint32_t>(height));
  append(header, {depth, colour_type, 0, 0, 0});
  chunk("IHDR", header);
  if (!palette.empty()) chunk("PLTE", palette);
  // One stored block of deflate: at most 65535 bytes.
  const int size = static_cast<int>(rows_with_filter_bytes.size());
  Bytes data;
  append(data, {0x78, 0x01, 0x01, size & 255, size >> 8, ~size & 255, (~size >> 8) & 255});
  for (const std::uint8_t value : rows_with_filter_bytes) append(data, {value});
  append_big_endian(data, 0);
  chunk("IDAT", data);
  chunk("IEND", {});
  return png;
}

}  // namespace qtrain::data
