// libFuzzer target: whatever the bytes, decode_image returns a whole image or throws a FormatError.
#include <cstdlib>

#include "data/codec/decode.h"
#include "engine/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace qtrain;
  try {
    data::Image image;
    data::decode_image({reinterpret_cast<const std::byte*>(data), size}, "fuzzed input", image, 1 << 18);
    const auto pixels = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
    if (pixels == 0 || image.rgb.size() != pixels * 3) std::abort();
  } catch (const FormatError&) {
  }
  return 0;
}
