// Inside of the file code: descriptors that close themselves, and the one way in which a system error is
// reported.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

namespace qtrain {

class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() { close(); }

  bool valid() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  int close() noexcept;  // 0, or the error number; afterwards there is nothing to close

 private:
  int descriptor_;
};

// Throws an IoError for the error number: path, what failed, the system's reason, and a hint where one helps.
[[noreturn]] void throw_io_error(const std::filesystem::path& path, std::string what, int error_number);

// open(2) with O_CLOEXEC, retried when a signal interrupts: the descriptor, or -1 and errno. New files get
// 0666 less the umask.
FileDescriptor try_open(const std::filesystem::path& path, int flags);

// Opens a regular file for reading and reports its size. A folder, pipe or device is refused.
struct OpenedFile {
  FileDescriptor descriptor;
  std::uint64_t size;
};
OpenedFile open_regular_file(const std::filesystem::path& path);

}  // namespace qtrain
