#include "data/sets/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "engine/core/error.h"
#include "engine/io/file_descriptor.h"

namespace qtrain::data {

MappedFile::MappedFile(const std::filesystem::path& path) : name_(path.string()) {
  const OpenedFile file = open_regular_file(path);
  if (file.size == 0) throw FormatError({.where = name_, .what = "the file is empty"});
  const auto size = static_cast<std::size_t>(file.size);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor.get(), 0);
  if (address == MAP_FAILED) throw_io_error(path, "can't map the file into memory", errno);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : name_(std::move(other.name_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile::~MappedFile() {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): the interface of munmap
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::expect_random_access() const {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): the interface of madvise; only a hint
  ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_RANDOM);
}

std::span<const std::byte> MappedFile::bring(std::span<const std::byte> part) const {
  static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<std::size_t>(part.data() - bytes_.data());
  const std::size_t first = offset / page * page;
  const std::size_t last = std::min(bytes_.size(), (offset + part.size() + page - 1) / page * page);
  const auto pages = bytes_.subspan(first, last - first);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): the interface of madvise
  auto* const start = const_cast<std::byte*>(pages.data());
  // The first call asks the disk for all pages at once, the second waits until they are mapped and reports
  // what a touch would end in SIGBUS for.
  ::madvise(start, pages.size(), MADV_WILLNEED);
  if (::madvise(start, pages.size(), MADV_POPULATE_READ) != 0 && (errno == EFAULT || errno == EHWPOISON)) {
    throw IoError({.where = name_,
                   .what = "can't read the file any more",
                   .got = "",
                   .expected = "",
                   .hint = "it was shortened while in use, or the disk reports an error"});
  }
  return pages;
}

}  // namespace qtrain::data
