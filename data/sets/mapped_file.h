// A file in memory without reading it: its pages come from the disk, or from the page cache, when they are
// touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace qtrain::data {

class MappedFile {
 public:
  // Maps the whole file read-only. Throws IoError for what can't be opened, isn't a regular file or is empty.
  // Replacing the file by another of its name is harmless.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& name() const { return name_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  // From now on parts are read here and there, each after bring(): the system needn't read around them.
  void expect_random_access() const;

  // Has a part of bytes() read, and returns it with the rest of its pages. Throws IoError where the disk
  // fails or where the file has been shortened since it was opened: touching such pages without asking first
  // would end the process by SIGBUS. (So does shortening it between this call and the use. Before Linux 5.14
  // nothing is checked.)
  std::span<const std::byte> bring(std::span<const std::byte> part) const;

 private:
  std::string name_;
  std::span<const std::byte> bytes_;
};

}  // namespace qtrain::data
