// libFuzzer target: whatever the bytes, the parser returns a valid file or throws FormatError, and every byte
// that it hands out can be read. Build: clang++ -fsanitize=fuzzer,address,undefined.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "engine/core/error.h"
#include "engine/io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  try {
    const qtrain::SafetensorsFile file = qtrain::SafetensorsFile::parse({bytes, bytes + size}, "fuzz");
    std::size_t covered = 0;
    volatile std::byte sink{};
    for (const qtrain::TensorEntry& entry : file.entries()) {
      covered += entry.bytes.size();
      for (const std::byte b : entry.bytes) sink = b;
      if (file.find(entry.name) != &entry) std::abort();
    }
    static_cast<void>(sink);
    if (covered > size) std::abort();
  } catch (const qtrain::FormatError&) {  // how malformed input ends
  }
  return 0;
}
