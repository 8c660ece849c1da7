// The layout of a pack: the image files of a data set, both splits, in one file. All numbers are unsigned and
// little-endian.
//
//   header    "qtrain pack\n", 4 bytes of version
//   records   image files as they are, each at a multiple of 64 bytes, zeros between them
//   index     at a multiple of 64 bytes:
//     entries   of the training images, then of the validation images: PackEntry
//     names     of all records, one behind the other
//     classes   their names: 4 bytes of length, then the text
//   footer    PackFooter, the last bytes of the file
//
// The index stands behind the records, so that a pack is written in one go; it is complete when its footer is
// there. The footer's checksum covers index and footer, an entry's covers its record.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace qtrain::data {

static_assert(std::endian::native == std::endian::little, "packs are little-endian");

inline constexpr std::string_view pack_magic = "qtrain pack\n";
inline constexpr std::uint32_t pack_version = 1;
inline constexpr std::size_t pack_header_bytes = pack_magic.size() + sizeof pack_version;
inline constexpr std::size_t pack_alignment = 64;

struct PackEntry {
  std::uint64_t offset;    // of the record in the file
  std::uint64_t checksum;  // XXH3 with 64 bits
  std::uint64_t name_end;  // in `names`; it begins where the one before ends
  std::uint32_t length;
  std::uint32_t label;
};
static_assert(sizeof(PackEntry) == 32);

struct PackFooter {
  std::uint64_t file_bytes;
  std::uint64_t index_offset;
  std::uint64_t train_images;
  std::uint64_t val_images;
  std::uint64_t names_bytes;
  std::uint64_t classes;
  std::uint64_t classes_bytes;
  std::uint64_t checksum;  // XXH3 with 64 bits from the index to here
  char magic[8];
};
static_assert(sizeof(PackFooter) == 72);
inline constexpr std::string_view pack_end_magic = "packend\n";

// A pack's index where it lies: nothing is copied but the names of classes.
class PackIndex {
 public:
  // Checks everything that the index claims, so that its entries can be used. Throws FormatError, which names
  // the file and what is wrong; the records themselves aren't touched.
  PackIndex(std::span<const std::byte> file, const std::string& name_for_errors);

  std::size_t size(Split split) const { return split == Split::train ? train_ : entries_ - train_; }
  PackEntry entry(Split split, std::size_t index) const { return at(place(split, index)); }
  std::string_view name(Split split, std::size_t index) const;
  const std::vector<std::string>& classes() const { return classes_; }

 private:
  std::size_t place(Split split, std::size_t index) const {
    return split == Split::train ? index : train_ + index;
  }
  PackEntry at(std::size_t place) const;
  void check_entries(std::uint64_t records_end, const std::string& file) const;

  std::size_t train_ = 0;
  std::size_t entries_ = 0;  // of both splits
  std::span<const std::byte> table_;
  std::string_view names_;
  std::vector<std::string> classes_;
};

}  // namespace qtrain::data
