#include "cli/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/core/error.h"

namespace qtrain::cli {

AppendFile::AppendFile(const std::string& path)
    : path_(path), descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) throw IoError({path, "can't open for writing", std::strerror(errno), "", ""});
}

AppendFile::~AppendFile() {
  ::close(descriptor_);
}

void AppendFile::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw IoError({path_, "can't write", std::strerror(errno), "", ""});
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void AppendFile::sync() {
  // EINVAL: a pipe or terminal, which has no disk to reach.
  if (::fsync(descriptor_) != 0 && errno != EINVAL)
    throw IoError({path_, "can't write to disk", std::strerror(errno), "", ""});
}

}  // namespace qtrain::cli
