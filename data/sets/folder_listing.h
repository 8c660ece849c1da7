// All files of a split, by class, folder and name.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qtrain::data {

// What changes when files or folders are added to a folder, removed or renamed. The time of the last
// modification can be set by programs (tar and rsync do), the time of the last change can't.
struct FolderStamp {
  std::int64_t modified_seconds = 0;
  std::int64_t modified_nanoseconds = 0;
  std::int64_t changed_seconds = 0;
  std::int64_t changed_nanoseconds = 0;
  std::uint64_t inode = 0;

  FolderStamp() = default;
  explicit FolderStamp(const struct stat& status);
  friend bool operator==(const FolderStamp&, const FolderStamp&) = default;
};

// ImageNet has 1.3 million files: their names lie in one string, with four bytes for each beside it; folders
// are written once.
struct FolderListing {
  struct Folder {
    std::string path;  // below the split's folder: CLASS or CLASS/any/depth
    std::uint32_t label = 0;
    FolderStamp stamp;
    std::uint64_t first_file = 0;
    std::uint64_t first_name = 0;  // where the names of its files begin
  };

  FolderStamp stamp;                     // of the split's folder itself
  std::vector<Folder> folders;           // all, those without files too
  std::vector<std::uint32_t> name_ends;  // of each file, counted from its folder's first_name
  std::string names;

  std::size_t files() const { return name_ends.size(); }
  const Folder& folder_of(std::size_t file) const;
  std::string_view name_of(std::size_t file, const Folder& folder) const;
};

// The folders directly in a folder, sorted, hidden ones left out. Throws IoError where it can't be listed.
std::vector<std::string> folders_in(const std::filesystem::path& folder);

// Lists the classes of a split. Folders are read by several threads: a network disk answers many questions at
// once. The kind of an entry comes with its name, so that only links cost a question each. Throws IoError for
// a folder that can't be listed; FormatError for a folder that contains itself by a link, and for a class
// without files.
FolderListing list_classes(const std::filesystem::path& split, const std::vector<std::string>& classes);

// Calls function(0) .. function(count-1) from several threads. Of the exceptions, that of the lowest number
// is thrown on.
void for_each_in_parallel(std::size_t count, const std::function<void(std::size_t)>& function);

}  // namespace qtrain::data
