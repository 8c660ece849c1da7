#include "engine/io/file_descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/core/error.h"

namespace qtrain {
namespace {

std::string hint_for(int error_number) {
  switch (error_number) {
    case ENOSPC:
      return "the disk is full: free some space or choose another folder";
    case EDQUOT:
      return "the disk quota is used up: free some space or choose another folder";
    case EFBIG:
      return "the file would exceed the size limit (ulimit -f) or what the file system can hold";
    case EROFS:
      return "the file system is read-only: choose another folder";
    case EACCES:
    case EPERM:
      return "check the permissions of the file and its folder";
    case ENOENT:
      return "check the path: the file or its folder doesn't exist";
    case ENOTDIR:
      return "a part of the path is a file, not a folder";
    case EIO:
      return "the disk reports an error: check its health";
    default:
      return "";
  }
}

}  // namespace

int FileDescriptor::close() noexcept {
  if (descriptor_ < 0) return 0;
  // On Linux the descriptor is gone even when a signal interrupts close(2), so it is never retried.
  const int result = ::close(std::exchange(descriptor_, -1));
  return result == 0 || errno == EINTR ? 0 : errno;
}

void throw_io_error(const std::filesystem::path& path, std::string what, int error_number) {
  throw IoError({.where = path.string(),
                 .what = std::move(what) + ": " + std::strerror(error_number),
                 .got = "",
                 .expected = "",
                 .hint = hint_for(error_number)});
}

FileDescriptor try_open(const std::filesystem::path& path, int flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EINTR);
  return FileDescriptor(descriptor);
}

OpenedFile open_regular_file(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe by mistake must not wait for a writer.
  FileDescriptor descriptor = try_open(path, O_RDONLY | O_NONBLOCK);
  if (!descriptor.valid()) throw_io_error(path, "can't open the file", errno);
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0) throw_io_error(path, "can't read the file's size", errno);
  if (!S_ISREG(status.st_mode))
    throw IoError({.where = path.string(),
                   .what = S_ISDIR(status.st_mode) ? "a folder, not a file" : "not a regular file",
                   .got = "",
                   .expected = "",
                   .hint = ""});
  return {std::move(descriptor), static_cast<std::uint64_t>(status.st_size)};
}

}  // namespace qtrain
