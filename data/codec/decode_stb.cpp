// PNG, BMP, GIF, PSD and PNM through stb_image, which is compiled here and nowhere else.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "data/codec/decoders.h"

#define STB_IMAGE_IMPLEMENTATION
#define STBI_MALLOC(size) \
  std::calloc(1, size)  // damaged files may leave pixels unwritten: black, not garbage
#define STBI_REALLOC(memory, size) std::realloc(memory, size)
#define STBI_FREE(memory) std::free(memory)
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_NO_JPEG
#define STBI_NO_TGA  // without a signature, so any text could pass for one
#define STBI_NO_HDR
#define STBI_NO_PIC
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#ifdef __clang__  // it calls memcpy(nullptr, ..., 0) for empty PNG chunks: harmless, but UBSan objects
#pragma clang attribute push(__attribute__((no_sanitize("nonnull-attribute"))), apply_to = function)
#endif
#include <stb/stb_image.h>
#ifdef __clang__
#pragma clang attribute pop
#endif
#pragma GCC diagnostic pop

namespace qtrain::data {
namespace {

// Feeds stb_image and watches what it asks for: several of its decoders fill in zeros at the end of the data
// without a word, so a request that can't be met whole is how truncation is found.
class Source {
 public:
  explicit Source(std::span<const std::byte> bytes) : bytes_(bytes) {}

  static stbi_io_callbacks callbacks() { return {&read, &skip, &at_end}; }
  bool overrun() const { return overrun_; }

 private:
  static int read(void* self, char* out, int size) {
    Source& source = *static_cast<Source*>(self);
    const std::size_t left = source.bytes_.size() - source.position_;
    const std::size_t count = std::min(left, static_cast<std::size_t>(size));
    // stb_image's own read-ahead asks for buffer_size bytes and may get fewer.
    if (count == 0 || (count < static_cast<std::size_t>(size) && size != buffer_size)) source.overrun_ = true;
    if (count > 0) std::memcpy(out, source.bytes_.data() + source.position_, count);
    source.position_ += count;
    return static_cast<int>(count);
  }

  static void skip(void* self, int count) {
    Source& source = *static_cast<Source*>(self);
    const std::size_t left = source.bytes_.size() - source.position_;
    if (count < 0 || static_cast<std::size_t>(count) > left) source.overrun_ = true;
    source.position_ += std::min(left, static_cast<std::size_t>(std::max(count, 0)));
  }

  static int at_end(void* self) {
    const Source& source = *static_cast<Source*>(self);
    return source.position_ == source.bytes_.size();
  }

  static constexpr int buffer_size = sizeof(stbi__context::buffer_start);

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  bool overrun_ = false;
};

// stb_image passes PNM samples on as they are, which is right when the largest is 255, and counts digits of
// the header into an int without end. So the three numbers there are looked at first, read as stb_image does.
void check_pnm_header(std::span<const std::byte> file, const std::string& name) {
  constexpr int limit = 100'000'000;
  std::size_t at = 2;
  const auto peek = [&] { return at < file.size() ? std::to_integer<unsigned char>(file[at]) : 0; };
  int value = 0;
  for (int number = 0; number < 3; ++number) {
    while (std::isspace(peek()) || peek() == '#') {
      if (peek() == '#') {
        while (peek() != '\n' && peek() != '\r' && at < file.size()) ++at;
      } else {
        ++at;
      }
    }
    for (value = 0; std::isdigit(peek()) && value < limit; ++at) value = 10 * value + peek() - '0';
    if (value >= limit) throw_damaged(name, "PNM file with a number out of range", std::to_string(value));
  }
  if (value != 255) {
    throw_damaged(name, "PNM file whose largest sample value is not 255", std::to_string(value));
  }
}

// Any number of channels to RGB: gray is repeated, alpha (the second or fourth channel) is dropped.
// stb_image's own conversion overruns its buffer for some files.
void to_rgb(const stbi_uc* pixels, std::size_t count, int channels, std::vector<std::uint8_t>& rgb) {
  rgb.resize(3 * count);
  const auto step = static_cast<std::size_t>(channels);
  const std::size_t green = channels >= 3 ? 1 : 0;
  for (std::size_t i = 0; i < count; ++i) {
    const stbi_uc* pixel = pixels + i * step;
    rgb[3 * i] = pixel[0];
    rgb[3 * i + 1] = pixel[green];
    rgb[3 * i + 2] = pixel[2 * green];
  }
}

[[noreturn]] void fail(const Source& source, const std::string& name) {
  throw_damaged(name, "damaged image data", source.overrun() ? "a truncated file" : stbi_failure_reason());
}

}  // namespace

Size size_by_stb(std::span<const std::byte> file, const std::string& name, std::int64_t max_pixels) {
  if (file[0] == std::byte{'P'}) check_pnm_header(file, name);
  const stbi_io_callbacks callbacks = Source::callbacks();
  Source source(file);
  Size size;
  int channels = 0;
  if (!stbi_info_from_callbacks(&callbacks, &source, &size.width, &size.height, &channels)) {
    fail(source, name);
  }
  check_image_size(size.width, size.height, max_pixels, name);
  return size;
}

void decode_with_stb(std::span<const std::byte> file, const std::string& name, std::int64_t max_pixels,
                     Image& image) {
  const Size announced = size_by_stb(file, name, max_pixels);
  const stbi_io_callbacks callbacks = Source::callbacks();
  Source source(file);
  Size size;
  int channels = 0;
  const std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels(
      stbi_load_from_callbacks(&callbacks, &source, &size.width, &size.height, &channels, 0),
      &stbi_image_free);
  if (!pixels || source.overrun()) fail(source, name);
  if (size != announced) throw_damaged(name, "damaged image data", "two different sizes in one file");
  image.width = size.width;
  image.height = size.height;
  to_rgb(pixels.get(), static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height), channels,
         image.rgb);
}

}  // namespace qtrain::data
