#include "data/sets/folder_index.h"

#include <atomic>
#include <cstring>
#include <span>
#include <system_error>

#include "engine/core/error.h"
#include "engine/io/atomic_file.h"
#include "engine/io/checksum.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

// The file: this text, which names the format's version; the checksum of all that follows; numbers of 8
// bytes, and texts, each behind its length, as Writer writes them; name_ends and names as they lie in memory.
constexpr std::string_view heading = "qtrain folder index 1\n";
constexpr std::size_t checksum_digits = 32;
constexpr std::int64_t settle_seconds = 2;  // the coarsest time stamps of file systems in use

class Writer {
 public:
  void number(std::uint64_t value) { raw(std::as_bytes(std::span(&value, 1))); }
  void text(std::string_view value) {
    number(value.size());
    raw(std::as_bytes(std::span(value)));
  }
  void stamp(const FolderStamp& value) { raw(std::as_bytes(std::span(&value, 1))); }
  void raw(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint64_t number() { return value<std::uint64_t>(); }
  FolderStamp stamp() { return value<FolderStamp>(); }
  std::string text() {
    std::string result(count(sizeof(char)), '\0');
    copy(result.data(), result.size());
    return result;
  }
  // A number of things that take at least `bytes_each`.
  std::size_t count(std::size_t bytes_each) {
    const std::uint64_t value = number();
    if (value > bytes_.size() / bytes_each) fail();
    return value;
  }
  void copy(void* to, std::size_t bytes) {
    if (bytes > bytes_.size()) fail();
    if (bytes > 0) std::memcpy(to, bytes_.data(), bytes);
    bytes_ = bytes_.subspan(bytes);
  }
  void require_end() const {
    if (!bytes_.empty()) fail();
  }
  [[noreturn]] static void fail() { throw FormatError({.where = "folder index", .what = "damaged"}); }

 private:
  template <class T>
  T value() {
    T result{};
    copy(&result, sizeof(T));
    return result;
  }

  std::span<const std::byte> bytes_;
};

std::size_t class_count(const FolderListing& listing) {
  return listing.folders.empty() ? 0 : listing.folders.back().label + std::size_t{1};
}

void write(const FolderListing& listing, const std::string& real_path, const fs::path& path) {
  Writer payload;
  payload.text(real_path);
  payload.stamp(listing.stamp);
  payload.number(class_count(listing));
  payload.number(listing.folders.size());
  for (const FolderListing::Folder& folder : listing.folders) {
    payload.text(folder.path);
    payload.number(folder.label);
    payload.stamp(folder.stamp);
    payload.number(folder.first_file);
    payload.number(folder.first_name);
  }
  payload.number(listing.name_ends.size());
  payload.raw(std::as_bytes(std::span(listing.name_ends)));
  payload.text(listing.names);
  const std::string checksum = checksum_hex(payload.bytes());
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(heading)));
  file.write(std::as_bytes(std::span(checksum)));
  file.write(payload.bytes());
  file.commit();
}

// What follows the head, after a check of all of it.
std::span<const std::byte> payload_of(std::span<const std::byte> file) {
  const auto text = [&](std::size_t from, std::size_t size) {
    return std::string_view(reinterpret_cast<const char*>(file.data()) + from, size);
  };
  if (file.size() < heading.size() + checksum_digits || text(0, heading.size()) != heading) Reader::fail();
  const auto payload = file.subspan(heading.size() + checksum_digits);
  if (text(heading.size(), checksum_digits) != checksum_hex(payload)) Reader::fail();
  return payload;
}

FolderListing parse(std::span<const std::byte> file, const std::string& real_path, std::size_t classes) {
  Reader in(payload_of(file));
  FolderListing listing;
  if (in.text() != real_path) Reader::fail();  // another folder with the same hash
  listing.stamp = in.stamp();
  if (in.number() != classes) Reader::fail();
  listing.folders.resize(in.count(sizeof(FolderStamp)));
  for (FolderListing::Folder& folder : listing.folders) {
    folder.path = in.text();
    folder.label = static_cast<std::uint32_t>(in.number());
    folder.stamp = in.stamp();
    folder.first_file = in.number();
    folder.first_name = in.number();
  }
  listing.name_ends.resize(in.count(sizeof(std::uint32_t)));
  in.copy(listing.name_ends.data(), listing.name_ends.size() * sizeof(std::uint32_t));
  listing.names = in.text();
  in.require_end();
  return listing;
}

bool is_unchanged(const fs::path& folder, const FolderStamp& stamp) {
  struct stat status {};
  return ::stat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && FolderStamp(status) == stamp;
}

bool is_unchanged(const fs::path& split, const FolderListing& listing) {
  std::atomic<bool> same = is_unchanged(split, listing.stamp);
  for_each_in_parallel(listing.folders.size(), [&](std::size_t i) {
    if (same && !is_unchanged(split / listing.folders[i].path, listing.folders[i].stamp)) same = false;
  });
  return same;
}

}  // namespace

FolderIndex::FolderIndex(const fs::path& indices, const fs::path& split) : split_(split) {
  std::error_code ignored;
  real_path_ = fs::weakly_canonical(split, ignored).string();
  path_ = indices / ("folder-" + checksum_hex(std::as_bytes(std::span(real_path_))) + ".index");
}

std::optional<FolderListing> FolderIndex::load(std::size_t classes) const {
  try {
    FolderListing listing = parse(qtrain::read_file(path_), real_path_, classes);
    if (is_unchanged(split_, listing)) return listing;
  } catch (const Error&) {  // no index yet, one that can't be read, or a damaged one
  }
  return std::nullopt;
}

void FolderIndex::save(const FolderListing& listing, std::int64_t listed_at) const {
  const auto settled = [&](const FolderStamp& stamp) {
    return stamp.modified_seconds + settle_seconds < listed_at;
  };
  bool all_settled = settled(listing.stamp);
  for (const FolderListing::Folder& folder : listing.folders)
    all_settled = all_settled && settled(folder.stamp);
  if (!all_settled) return;
  std::error_code error;
  fs::create_directories(path_.parent_path(), error);
  if (error) return;
  try {
    remove_abandoned_temporaries(path_);
    write(listing, real_path_, path_);
  } catch (const Error&) {  // a read-only or full disk: the next start lists anew
  }
}

}  // namespace qtrain::data
