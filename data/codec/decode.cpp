#include "data/codec/decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "data/codec/decoders.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

using namespace std::string_view_literals;

enum class Decoder { jpeg, stb, none };

struct Signature {
  std::size_t offset;
  std::string_view magic;
  Decoder decoder;
  std::string_view format;
};

constexpr Signature signatures[] = {
    {0, "\xFF\xD8\xFF"sv, Decoder::jpeg, "JPEG"},
    {0, "\x89PNG\r\n\x1A\n"sv, Decoder::stb, "PNG"},
    {0, "BM"sv, Decoder::stb, "BMP"},
    {0, "GIF8"sv, Decoder::stb, "GIF"},
    {0, "8BPS"sv, Decoder::stb, "PSD"},
    {0, "P5"sv, Decoder::stb, "PGM"},
    {0, "P6"sv, Decoder::stb, "PPM"},
    // Known only so that the error can say what the file is.
    {8, "WEBP"sv, Decoder::none, "WebP"},
    {0, "II*\0"sv, Decoder::none, "TIFF"},
    {0, "MM\0*"sv, Decoder::none, "TIFF"},
    {4, "ftypavif"sv, Decoder::none, "AVIF"},
    {4, "ftypheic"sv, Decoder::none, "HEIF"},
    {0, "\0\0\0\x0CjP  "sv, Decoder::none, "JPEG 2000"},
    {0, "%PDF"sv, Decoder::none, "PDF"},
    {0, "PK\x03\x04"sv, Decoder::none, "ZIP"},
    {0, "\x1F\x8B"sv, Decoder::none, "gzip"},
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

void decode_image(std::span<const std::byte> bytes, const std::string& name_for_errors, Image& image,
                  std::int64_t max_pixels) {
  if (bytes.empty()) throw FormatError({.where = name_for_errors, .what = "the image file is empty"});
  char head[16];
  const std::size_t count = std::min(bytes.size(), sizeof(head));
  std::transform(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count), head,
                 [](std::byte b) { return static_cast<char>(b); });
  const Signature* signature = recognise({head, count});
  if (signature == nullptr || signature->decoder == Decoder::none) {
    throw FormatError(
        {.where = name_for_errors,
         .what = "not an image that can be read",
         .got = signature ? fmt::format("{} data", signature->format) : describe_unknown({head, count}),
         .expected = readable_formats});
  }
  if (signature->decoder == Decoder::jpeg) {
    decode_jpeg(bytes, name_for_errors, max_pixels, image);
  } else {
    decode_with_stb(bytes, name_for_errors, max_pixels, image);
  }
}

Image decode_image(std::span<const std::byte> bytes, const std::string& name_for_errors) {
  Image image;
  decode_image(bytes, name_for_errors, image);
  return image;
}

}  // namespace qtrain::data
