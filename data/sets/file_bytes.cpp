#include "data/sets/file_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "engine/core/error.h"

namespace qtrain::data {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what, int code) {
  throw IoError({.where = path, .what = what, .got = std::generic_category().message(code)});
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, const char* what)
      : number_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (number_ < 0) fail(path, what, errno);
  }
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int number() const { return number_; }
  int close() {
    const int result = number_ < 0 ? 0 : ::close(number_);
    number_ = -1;
    return result;
  }

 private:
  int number_;
};

}  // namespace

void read_file(const std::string& path, std::vector<std::byte>& bytes, std::size_t limit) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, "can't open the file");
  struct stat status {};
  if (::fstat(file.number(), &status) != 0) fail(path, "can't read the file", errno);
  if (!S_ISREG(status.st_mode)) {
    throw IoError(
        {.where = path,
         .what = S_ISDIR(status.st_mode) ? "a folder where a file should be" : "not a regular file"});
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > limit) {
    throw IoError({.where = path,
                   .what = "the file is too large",
                   .got = std::to_string(size) + " bytes",
                   .expected = "at most " + std::to_string(limit)});
  }
  bytes.resize(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count = ::read(file.number(), bytes.data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path, "can't read the file", errno);
    if (count == 0) break;  // shortened since fstat
    done += static_cast<std::size_t>(count);
  }
  bytes.resize(done);
}

void write_file(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  Descriptor file(path.string(), O_WRONLY | O_CREAT | O_TRUNC, "can't create the file");
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::write(file.number(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path.string(), "can't write the file", errno);
    done += static_cast<std::size_t>(count);
  }
  if (file.close() != 0) fail(path.string(), "can't write the file", errno);
}

}  // namespace qtrain::data
