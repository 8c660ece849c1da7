// The members of a tar archive where they lie. libarchive reads archives from the beginning to the end; a
// shuffled epoch needs the place of each member in a mapped file, and the headers that say it are simple.
//
// Read: POSIX ustar, pax (path and size of the next member), GNU (long names, sizes in base 256), and the old
// format before them. https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace qtrain::data {

struct TarMember {
  std::string name;
  char type = '0';         // '0': a file; '5': a folder; '1', '2': links; others are rarely met
  std::size_t header = 0;  // where it begins in the archive
  std::size_t offset = 0;  // of its content
  std::size_t size = 0;    // of its content, which lies inside of the archive
};

class TarReader {
 public:
  // `bring` is called with each part of the archive before it is read.
  TarReader(std::span<const std::byte> archive, std::string name_for_errors,
            std::function<void(std::span<const std::byte>)> bring = {});

  // The next member; false at the archive's end. Throws FormatError, which names archive and offset, for
  // headers with a wrong checksum, sizes that are no numbers or reach beyond the archive, an archive without
  // an end mark (it was cut off), and bytes behind it (two archives in one file).
  bool next(TarMember& member);

  [[noreturn]] void fail(std::size_t offset, const std::string& what, const std::string& got = "",
                         const std::string& hint = "") const;
  std::span<const std::byte> content(const TarMember& member) const;

 private:
  std::span<const std::byte> block(std::size_t offset) const;
  void read_header(TarMember& member);
  void read_pax(const TarMember& records, std::string& name, std::uint64_t& size, bool& has_size) const;
  void set_size(TarMember& member, std::uint64_t size);  // of its content, and where the next one begins
  void check_end() const;

  std::span<const std::byte> archive_;
  std::string name_;
  std::function<void(std::span<const std::byte>)> bring_;
  std::size_t position_ = 0;  // of the next header
};

}  // namespace qtrain::data
