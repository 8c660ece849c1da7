#include "engine/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <system_error>
#include <utility>

#include "engine/core/error.h"
#include "engine/io/file_descriptor.h"

namespace qtrain {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

void sync(const FileDescriptor& file, const std::filesystem::path& path) {
  int result = 0;
  do {
    result = ::fsync(file.get());
  } while (result != 0 && errno == EINTR);
  // EINVAL: a file system that has nothing to flush (some FUSE and network ones, for folders).
  if (result != 0 && errno != EINVAL) throw_io_error(path, "can't flush to the disk", errno);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), temporary_(path_), file_(-1) {
  if (!path_.has_filename())
    throw IoError(
        {.where = path_.string(), .what = "not a file name", .got = "", .expected = "", .hint = ""});
  temporary_ += ".tmp." + std::to_string(::getpid());
  // Renaming onto a device or pipe (/dev/null!) would replace it.
  std::error_code ignored;
  const std::filesystem::file_status target = std::filesystem::status(path_, ignored);
  if (std::filesystem::exists(target) && !std::filesystem::is_regular_file(target))
    throw IoError(
        {.where = path_.string(),
         .what = std::filesystem::is_directory(target) ? "a folder, not a file" : "not a regular file",
         .got = "",
         .expected = "",
         .hint = ""});
  // A temporary of a killed process with the same id is worthless: truncate it.
  file_ = try_open(temporary_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
  if (!file_.valid()) throw_io_error(path_, "can't create the file", errno);
}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  constexpr std::size_t chunk = std::size_t{1} << 30;  // write(2) takes at most 2 GiB at once
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_.get(), bytes.data(), std::min(bytes.size(), chunk));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_io_error(path_, "can't write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  sync(file_, path_);
  if (const int error = file_.close()) throw_io_error(path_, "can't close the file", error);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0)
    throw_io_error(path_, "can't move the finished file to its name", errno);
  committed_ = true;
  const std::filesystem::path folder = folder_of(path_);
  const FileDescriptor opened = try_open(folder, O_RDONLY | O_DIRECTORY);
  if (!opened.valid()) throw_io_error(folder, "can't open the folder", errno);
  sync(opened, folder);
}

void remove_abandoned_temporaries(const std::filesystem::path& path) {
  const std::string prefix = path.filename().string() + ".tmp.";
  std::error_code ignored;  // tidying up is never worth a failure
  std::filesystem::directory_iterator entry(folder_of(path), ignored);
  for (; !ignored && entry != std::filesystem::directory_iterator(); entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    pid_t process = 0;
    const auto [end, error] =
        std::from_chars(name.data() + prefix.size(), name.data() + name.size(), process);
    const bool is_temporary = error == std::errc() && end == name.data() + name.size() && process > 0;
    if (is_temporary && ::kill(process, 0) != 0 && errno == ESRCH) ::unlink(entry->path().c_str());
  }
}

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

std::vector<std::byte> read_file(const std::filesystem::path& path) {
  const OpenedFile file = open_regular_file(path);
  std::vector<std::byte> bytes(file.size);
  std::size_t filled = 0;
  for (;;) {
    if (filled == bytes.size())
      bytes.resize(bytes.size() + 4096);  // may have grown; /proc reports a size of 0
    const ssize_t got = ::read(file.descriptor.get(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_io_error(path, "can't read", errno);
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  bytes.resize(filled);
  return bytes;
}

}  // namespace qtrain
