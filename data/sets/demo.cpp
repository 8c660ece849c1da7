#include "data/sets/demo.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <system_error>
#include <thread>

#include "data/codec/decode.h"
#include "data/sets/cache_folder.h"
#include "data/sets/demo_render.h"
#include "data/sets/file_bytes.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr int jpeg_quality = 90;
constexpr auto marker_name = ".demo-set";  // written last; hidden, so that no dataset takes it for a class

std::vector<std::byte> marker_text(const DemoCounts& counts, std::uintmax_t bytes) {
  const std::string text = fmt::format("qtrain demo set {}\ntrain {}\nval {}\nbytes {}\n", demo_version,
                                       counts.train, counts.val, bytes);
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

// The sizes of all images added up, or 0 when a split hasn't as many as it should have.
std::uintmax_t measure(const fs::path& folder, const DemoCounts& counts) {
  std::uintmax_t bytes = 0;
  for (const auto& [name, expected] : {std::pair{"train", counts.train}, std::pair{"val", counts.val}}) {
    std::size_t found = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder / name)) {
      if (!entry.is_regular_file()) continue;
      bytes += entry.file_size();
      ++found;
    }
    if (found != expected) return 0;
  }
  return bytes;
}

bool is_whole(const fs::path& folder, const DemoCounts& counts) {
  try {
    std::vector<std::byte> marker;
    read_file(folder / marker_name, marker);
    return marker == marker_text(counts, measure(folder, counts));
  } catch (const std::exception&) {  // any file or folder that is missing or can't be read
    return false;
  }
}

void write_image(const fs::path& folder, Split split, std::size_t index) {
  const std::vector<std::string>& classes = demo_class_names();
  const std::size_t label = index % classes.size();
  const Image image = render_demo_image(static_cast<int>(label), split, index);
  const fs::path parent = folder / (split == Split::train ? "train" : "val") / classes[label];
  write_file(parent / fmt::format("{:05}.jpg", index), encode_jpeg(image, jpeg_quality));
}

void generate(const fs::path& folder, const Progress& progress, const DemoCounts& counts, unsigned threads) {
  for (const char* split : {"train", "val"}) {
    for (const std::string& name : demo_class_names()) fs::create_directories(folder / split / name);
  }
  const std::size_t total = counts.train + counts.val;
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::size_t done = 0;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < total; i = next++) {
        const bool train = i < counts.train;
        write_image(folder, train ? Split::train : Split::val, train ? i : i - counts.train);
        const std::lock_guard lock(mutex);
        ++done;
        if (progress) progress(done, total);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = total;
    }
  };
  {
    std::vector<std::jthread> pool;
    for (unsigned i = 1; i < threads; ++i) pool.emplace_back(work);
    work();
  }
  if (error) std::rethrow_exception(error);
  write_file(folder / marker_name, marker_text(counts, measure(folder, counts)));
}

// Holds a lock file for as long as it lives. On file systems without locks the rename alone keeps the set
// whole.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& path)
      : file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (file_ < 0) {
      throw IoError({.where = path.string(),
                     .what = "can't write to the cache folder",
                     .got = std::generic_category().message(errno),
                     .hint = "set XDG_CACHE_HOME to a folder that can be written"});
    }
    while (::flock(file_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~FolderLock() { ::close(file_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_;
};

struct TemporaryFolder {
  fs::path path;
  explicit TemporaryFolder(fs::path where) : path(std::move(where)) {}
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
};

// What killed processes left behind. Called under the lock, so nobody is using it.
void remove_leftovers(const fs::path& folder) {
  const std::string prefix = folder.filename().string() + ".tmp.";
  std::error_code ignored;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(folder.parent_path(), ignored)) {
    if (entry.path().filename().string().starts_with(prefix)) leftovers.push_back(entry.path());
  }
  for (const fs::path& path : leftovers) fs::remove_all(path, ignored);
}

}  // namespace

fs::path demo_folder() {
  const std::optional<fs::path> cache = cache_folder();
  if (!cache) {
    throw IoError({.where = "demo set",
                   .what = "no cache folder",
                   .got = "neither XDG_CACHE_HOME nor HOME",
                   .hint = "set XDG_CACHE_HOME, or pass --data"});
  }
  return *cache / fmt::format("demo-{}", demo_version);
}

fs::path ensure_demo_set(const fs::path& folder, const Progress& progress, const DemoCounts& counts,
                         unsigned threads) {
  if (is_whole(folder, counts)) return folder;
  try {
    fs::create_directories(folder.parent_path());
    const FolderLock lock(folder.string() + ".lock");
    if (is_whole(folder, counts)) return folder;  // another process made it meanwhile
    remove_leftovers(folder);
    const TemporaryFolder made(folder.string() + ".tmp.new");
    const TemporaryFolder damaged(folder.string() + ".tmp.old");
    if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
    generate(made.path, progress, counts, threads);
    if (fs::exists(folder)) fs::rename(folder, damaged.path);
    fs::rename(made.path, folder);
  } catch (const fs::filesystem_error& error) {
    throw IoError({.where = error.path1().string(),
                   .what = "can't make the demo set",
                   .got = error.code().message(),
                   .hint = "set XDG_CACHE_HOME to a folder that can be written"});
  }
  return folder;
}

}  // namespace qtrain::data
