// libFuzzer target: whatever the bytes, decode_image returns a whole image or throws a FormatError, and
// ImageDecoder gives any part of it, at any scale. The input's last bytes say which.
#include <algorithm>
#include <cstdlib>
#include <optional>

#include "data/codec/image_decoder.h"
#include "engine/core/error.h"

namespace {

using namespace qtrain;
using data::Box;
using data::Image;
using data::Size;

constexpr std::int64_t max_pixels = 1 << 18;
constexpr std::size_t choice_bytes = 9;  // left, top, width, height: two each; shrinking: one

void require(bool ok) {
  if (!ok) std::abort();
}

void require_whole(const Image& image) {
  const auto pixels = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
  require(pixels > 0 && image.rgb.size() == pixels * 3);
}

std::optional<Image> decode_whole(std::span<const std::byte> file) {
  try {
    Image image;
    data::decode_image(file, "fuzzed input", image, max_pixels);
    require_whole(image);
    return image;
  } catch (const FormatError&) {
    return std::nullopt;
  }
}

Box chosen_box(std::span<const std::byte> choice, Size size) {
  const auto below = [choice](std::size_t at, int count) {
    return (std::to_integer<int>(choice[at]) << 8 | std::to_integer<int>(choice[at + 1])) % count;
  };
  Box box{.left = below(0, size.width), .top = below(2, size.height)};
  box.width = 1 + below(4, size.width - box.left);
  box.height = 1 + below(6, size.height - box.top);
  return box;
}

// At full size, the part's pixels are the whole's.
void require_part_of(const Image& whole, const data::DecodedPart& part, const Box& box) {
  for (int y = 0; y < box.height; ++y) {
    const auto row = [&](const Image& image, int left, int top) {
      return image.rgb.begin() + 3 * (std::ptrdiff_t{box.top + y - top} * image.width + box.left - left);
    };
    const auto expected = row(whole, 0, 0);
    require(std::equal(expected, expected + std::ptrdiff_t{3} * box.width,
                       row(part.pixels, part.left, part.top)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size < choice_bytes) return 0;
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  const auto file = input.first(size - choice_bytes);
  const auto choice = input.last(choice_bytes);
  const std::optional<Image> whole = decode_whole(file);
  static data::ImageDecoder decoder(data::DecodeMode::fast, max_pixels);
  try {
    const Size image = decoder.open(file, "fuzzed input");
    const Box box = chosen_box(choice, image);
    const int scale = 1 << (std::to_integer<int>(choice.back()) & 3);
    const data::DecodedPart& part = decoder.decode(box, 2 * scale);
    require_whole(part.pixels);
    const auto end = [&](int at, int length) { return (at + length + part.scale - 1) / part.scale; };
    require(part.scale <= scale && part.left <= box.left / part.scale && part.top <= box.top / part.scale);
    require(part.left + part.pixels.width >= end(box.left, box.width));
    require(part.top + part.pixels.height >= end(box.top, box.height));
    if (whole && part.scale == 1) require_part_of(*whole, part, box);
  } catch (const FormatError&) {
    // A sound image has sound parts.
    require(!whole);
  }
  return 0;
}
