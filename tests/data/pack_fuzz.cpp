// libFuzzer target: whatever the bytes, a pack's index is refused by a FormatError, or all that it says lies
// inside of the file. The checksum is made right first, or hardly any input would come further.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "data/sets/pack_format.h"
#include "engine/core/error.h"
#include "engine/io/checksum.h"

namespace {

using namespace qtrain;
using namespace qtrain::data;

void repair(std::vector<std::byte>& file) {
  if (file.size() < pack_header_bytes + sizeof(PackFooter)) return;
  std::memcpy(file.data(), pack_magic.data(), pack_magic.size());
  std::memcpy(file.data() + pack_magic.size(), &pack_version, sizeof pack_version);
  const std::size_t footer_at = file.size() - sizeof(PackFooter);
  PackFooter footer;
  std::memcpy(&footer, file.data() + footer_at, sizeof footer);
  footer.file_bytes = file.size();
  pack_end_magic.copy(footer.magic, sizeof footer.magic);
  std::memcpy(file.data() + footer_at, &footer, sizeof footer);
  if (footer.index_offset > footer_at) return;
  const auto begin = static_cast<std::size_t>(footer.index_offset);
  footer.checksum =
      checksum_64(std::span(file).subspan(begin, footer_at + offsetof(PackFooter, checksum) - begin));
  std::memcpy(file.data() + footer_at, &footer, sizeof footer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> file(bytes, bytes + size);
  if (size % 8 != 7) repair(file);  // some inputs stay as they are
  try {
    const PackIndex index(file, "fuzzed input");
    for (const Split split : {Split::train, Split::val}) {
      for (std::size_t i = 0; i < index.size(split); ++i) {
        const PackEntry entry = index.entry(split, i);
        if (entry.label >= index.classes().size() || index.name(split, i).size() > size) std::abort();
        static_cast<void>(checksum_64(std::span<const std::byte>(file).subspan(entry.offset, entry.length)));
      }
    }
  } catch (const FormatError&) {
  }
  return 0;
}
