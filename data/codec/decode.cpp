#include "data/codec/decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "data/codec/decoders.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

using namespace std::string_view_literals;

struct Signature {
  std::size_t offset;
  std::string_view magic;
  std::optional<Library> library;
  std::string_view format;
};

constexpr Signature signatures[] = {
    {0, "\xFF\xD8\xFF"sv, Library::jpeg, "JPEG"},
    {0, "\x89PNG\r\n\x1A\n"sv, Library::stb, "PNG"},
    {0, "BM"sv, Library::stb, "BMP"},
    {0, "GIF8"sv, Library::stb, "GIF"},
    {0, "8BPS"sv, Library::stb, "PSD"},
    {0, "P5"sv, Library::stb, "PGM"},
    {0, "P6"sv, Library::stb, "PPM"},
    // Known only so that the error can say what the file is.
    {8, "WEBP"sv, std::nullopt, "WebP"},
    {0, "II*\0"sv, std::nullopt, "TIFF"},
    {0, "MM\0*"sv, std::nullopt, "TIFF"},
    {4, "ftypavif"sv, std::nullopt, "AVIF"},
    {4, "ftypheic"sv, std::nullopt, "HEIF"},
    {0, "\0\0\0\x0CjP  "sv, std::nullopt, "JPEG 2000"},
    {0, "%PDF"sv, std::nullopt, "PDF"},
    {0, "PK\x03\x04"sv, std::nullopt, "ZIP"},
    {0, "\x1F\x8B"sv, std::nullopt, "gzip"},
};

constexpr auto readable_formats = "JPEG, PNG, BMP, GIF, PSD or PNM data";

const Signature* recognise(std::string_view head) {
  const auto* found = std::find_if(std::begin(signatures), std::end(signatures), [head](const Signature& s) {
    return head.size() >= s.offset && head.substr(s.offset).starts_with(s.magic);
  });
  return found == std::end(signatures) ? nullptr : found;
}

std::string describe_unknown(std::string_view head) {
  const bool text = std::all_of(head.begin(), head.end(), [](char c) {
    return (c >= ' ' && c < '\x7f') || c == '\n' || c == '\r' || c == '\t';
  });
  if (text) return fmt::format("text that begins with '{}'", head);
  std::string bytes = "bytes";
  for (const char c : head.substr(0, 8)) bytes += fmt::format(" {:02x}", static_cast<unsigned char>(c));
  return bytes;
}

}  // namespace

void check_image_size(std::int64_t width, std::int64_t height, std::int64_t max_pixels,
                      const std::string& name) {
  if (width >= 1 && height >= 1 && width <= max_pixels / height) return;
  throw FormatError({.where = name,
                     .what = "image size out of range",
                     .got = fmt::format("{} x {} pixels", width, height),
                     .expected = fmt::format("1 to {} pixels", max_pixels)});
}

void throw_damaged(const std::string& name, const std::string& what, const std::string& reason) {
  throw FormatError({.where = name, .what = what, .got = reason});
}

Library library_for(std::span<const std::byte> file, const std::string& name) {
  if (file.empty()) throw FormatError({.where = name, .what = "the image file is empty"});
  char head[16];
  const std::size_t count = std::min(file.size(), sizeof(head));
  std::transform(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(count), head,
                 [](std::byte b) { return static_cast<char>(b); });
  const Signature* signature = recognise({head, count});
  if (signature == nullptr || !signature->library) {
    throw FormatError(
        {.where = name,
         .what = "not an image that can be read",
         .got = signature ? fmt::format("{} data", signature->format) : describe_unknown({head, count}),
         .expected = readable_formats});
  }
  return *signature->library;
}

void decode_image(std::span<const std::byte> bytes, const std::string& name_for_errors, Image& image,
                  std::int64_t max_pixels) {
  if (library_for(bytes, name_for_errors) == Library::stb) {
    decode_with_stb(bytes, name_for_errors, max_pixels, image);
    return;
  }
  JpegDecoder decoder;
  const Size size = decoder.open(bytes, name_for_errors, max_pixels);
  DecodedPart part;
  std::swap(part.pixels, image);
  decoder.decode({0, 0, size.width, size.height}, 1, part);
  std::swap(part.pixels, image);
}

Image decode_image(std::span<const std::byte> bytes, const std::string& name_for_errors) {
  Image image;
  decode_image(bytes, name_for_errors, image);
  return image;
}

}  // namespace qtrain::data
