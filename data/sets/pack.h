// Packs: the image files of a data set in one file that is mapped into memory (pack_format.h).
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"
#include "data/sets/pack_format.h"
#include "engine/io/atomic_file.h"

namespace qtrain::data {

// Whether the path is a file that begins like a pack.
bool is_pack(const std::filesystem::path& path);

// The file stays mapped, its index too: a data set takes no memory for each image. Throws IoError and
// FormatError; everything but the records is checked here. A record's checksum is checked when it is fetched:
// a damaged one is a FormatError that names file and record.
std::shared_ptr<const Dataset> open_pack(const std::filesystem::path& path, Split split);

// Writes a pack, in one go and atomically: without finish() nothing is there. Throws IoError.
class PackWriter {
 public:
  explicit PackWriter(const std::filesystem::path& path);

  // All training images, then all validation images. ValueError for a file of 4 GiB or more.
  void append(Split split, std::int64_t label, std::string_view name, std::span<const std::byte> file);
  void finish(const std::vector<std::string>& classes);

  std::uint64_t bytes() const { return position_; }  // so far

 private:
  void write(std::span<const std::byte> bytes);
  void align();

  AtomicFile file_;
  std::uint64_t position_ = 0;
  std::size_t train_ = 0;
  std::vector<PackEntry> entries_;
  std::string names_;
};

}  // namespace qtrain::data
