#include "data/sets/folder_listing.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/core/error.h"
#include "engine/io/file_descriptor.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t listing_threads = 8;  // they mostly wait for the disk

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

// What lies directly in a folder, sorted, hidden entries left out.
struct Entries {
  struct stat status {};
  std::vector<std::string> folders;
  std::vector<std::string> files;
};

// Whether an entry is a folder, or a link to one. A link that leads nowhere counts as a file, so that reading
// it tells.
bool is_folder(DIR* folder, const dirent& entry) {
  if (entry.d_type != DT_LNK && entry.d_type != DT_UNKNOWN) return entry.d_type == DT_DIR;
  struct stat status {};
  return ::fstatat(::dirfd(folder), entry.d_name, &status, 0) == 0 && S_ISDIR(status.st_mode);
}

Entries list(const std::string& path) {
  const std::unique_ptr<DIR, CloseFolder> folder(::opendir(path.c_str()));
  if (!folder) throw_io_error(path, "can't list the folder", errno);
  Entries entries;
  // Before its entries are read: what is added meanwhile makes the stamp differ from a later one.
  if (::fstat(::dirfd(folder.get()), &entries.status) != 0)
    throw_io_error(path, "can't list the folder", errno);
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(folder.get());  // NOLINT(concurrency-mt-unsafe): each DIR has one thread
    if (entry == nullptr && errno != 0) throw_io_error(path, "can't list the folder", errno);
    if (entry == nullptr) break;
    if (entry->d_name[0] == '.') continue;
    (is_folder(folder.get(), *entry) ? entries.folders : entries.files).emplace_back(entry->d_name);
  }
  std::sort(entries.folders.begin(), entries.folders.end());
  std::sort(entries.files.begin(), entries.files.end());
  return entries;
}

// A class while it is being listed: a folder and the names of its files in one string.
struct ListedFolder {
  FolderListing::Folder folder;
  std::vector<std::uint32_t> name_ends;
  std::string names;
};

class ClassLister {
 public:
  explicit ClassLister(std::string split) : split_(std::move(split)) {}

  std::vector<ListedFolder> list_class(const std::string& name) {
    visit(name);
    // As strings, like Python's sorted(os.walk()).
    std::sort(listed_.begin(), listed_.end(),
              [](const ListedFolder& a, const ListedFolder& b) { return a.folder.path < b.folder.path; });
    return std::move(listed_);
  }

 private:
  void visit(const std::string& path) {
    const Entries entries = list(split_ + "/" + path);
    const std::pair identity(entries.status.st_dev, entries.status.st_ino);
    if (std::find(above_.begin(), above_.end(), identity) != above_.end()) {
      throw FormatError({.where = split_ + "/" + path,
                         .what = "a folder contains itself",
                         .hint = "a symbolic link leads to a folder above it"});
    }
    ListedFolder listed;
    listed.folder.path = path;
    listed.folder.stamp = FolderStamp(entries.status);
    listed.name_ends.reserve(entries.files.size());
    for (const std::string& file : entries.files) {
      listed.names += file;
      listed.name_ends.push_back(static_cast<std::uint32_t>(listed.names.size()));
    }
    listed_.push_back(std::move(listed));
    above_.push_back(identity);
    for (const std::string& inner : entries.folders) visit(fmt::format("{}/{}", path, inner));
    above_.pop_back();
  }

  std::string split_;
  std::vector<ListedFolder> listed_;
  std::vector<std::pair<dev_t, ino_t>> above_;  // the folders on the way here
};

void append(FolderListing& all, std::vector<ListedFolder> listed, std::uint32_t label) {
  for (ListedFolder& each : listed) {
    each.folder.label = label;
    each.folder.first_file = all.name_ends.size();
    each.folder.first_name = all.names.size();
    all.folders.push_back(std::move(each.folder));
    all.name_ends.insert(all.name_ends.end(), each.name_ends.begin(), each.name_ends.end());
    all.names += each.names;
  }
}

}  // namespace

FolderStamp::FolderStamp(const struct stat& status)
    : modified_seconds(status.st_mtim.tv_sec),
      modified_nanoseconds(status.st_mtim.tv_nsec),
      changed_seconds(status.st_ctim.tv_sec),
      changed_nanoseconds(status.st_ctim.tv_nsec),
      inode(status.st_ino) {}

const FolderListing::Folder& FolderListing::folder_of(std::size_t file) const {
  return *std::prev(
      std::upper_bound(folders.begin(), folders.end(), file,
                       [](std::size_t index, const Folder& f) { return index < f.first_file; }));
}

std::string_view FolderListing::name_of(std::size_t file, const Folder& folder) const {
  const std::size_t begin = file == folder.first_file ? 0 : name_ends[file - 1];
  return std::string_view(names).substr(folder.first_name + begin, name_ends[file] - begin);
}

std::vector<std::string> folders_in(const fs::path& folder) {
  return list(folder.string()).folders;
}

FolderListing list_classes(const fs::path& split, const std::vector<std::string>& classes) {
  FolderListing all;
  struct stat status {};
  if (::stat(split.c_str(), &status) != 0) throw_io_error(split, "can't list the folder", errno);
  all.stamp = FolderStamp(status);
  std::vector<std::vector<ListedFolder>> listed(classes.size());
  for_each_in_parallel(classes.size(), [&](std::size_t label) {
    listed[label] = ClassLister(split.string()).list_class(classes[label]);
    const bool has_files = std::any_of(listed[label].begin(), listed[label].end(),
                                       [](const ListedFolder& each) { return !each.name_ends.empty(); });
    if (!has_files)
      throw FormatError({.where = (split / classes[label]).string(), .what = "a class without images"});
  });
  for (std::size_t label = 0; label < classes.size(); ++label)
    append(all, std::exchange(listed[label], {}), static_cast<std::uint32_t>(label));
  all.names.shrink_to_fit();
  all.name_ends.shrink_to_fit();
  return all;
}

void for_each_in_parallel(std::size_t count, const std::function<void(std::size_t)>& function) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  std::size_t error_at = count;
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        function(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < error_at) {
          error_at = i;
          error = std::current_exception();
        }
        next = count;  // lower numbers have all been begun
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 1; i < std::min(count, listing_threads); ++i) threads.emplace_back(work);
    work();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace qtrain::data
