// Files that appear whole or not at all, whatever happens while they are written.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "engine/io/file_descriptor.h"

namespace qtrain {

// Writes `<path>.tmp.<pid>` beside `path`, and commit() makes it `path`: fsync of the file, rename, fsync of
// the folder. A crash, an error or a missing commit() leaves what was at `path` as it was; the destructor
// removes the temporary. Every refusal of the system is an IoError with the path and the reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);  // appends
  void commit();                                 // at most once, and the last call

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileDescriptor file_;
  bool committed_ = false;
};

// Removes the temporaries of `path` that killed processes have left behind; those of living ones stay.
void remove_abandoned_temporaries(const std::filesystem::path& path);

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);

// The whole content of a regular file.
std::vector<std::byte> read_file(const std::filesystem::path& path);

}  // namespace qtrain
