#include "cli/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "engine/core/error.h"
#include "engine/io/atomic_file.h"

namespace qtrain::cli {
namespace {

namespace fs = std::filesystem;
using Warn = std::function<void(const std::string&)>;

constexpr const char* next_name = "next.safetensors";
constexpr const char* last_name = "last.safetensors";
constexpr const char* previous_name = "previous.safetensors";
constexpr const char* best_name = "best.safetensors";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

void rename_file(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw_io_error(to, "can't rename a file to it", errno);
}

// Files that exist, the one to try first in front.
std::vector<fs::path> existing(const fs::path& folder, const std::vector<const char*>& names) {
  std::vector<fs::path> paths;
  for (const char* name : names)
    if (is_there(folder / name)) paths.push_back(folder / name);
  return paths;
}

// The first of the files that can be read. The last error is the caller's when there is none.
std::optional<Checkpoint> first_readable(const std::vector<fs::path>& paths, const Warn& warn) {
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const bool final = i + 1 == paths.size();
    try {
      return read_checkpoint(paths[i]);
    } catch (const FormatError& error) {
      if (final) throw;
      warn(fmt::format("{}; falling back to {}", error.what(), paths[i + 1].string()));
    } catch (const IoError& error) {
      if (final) throw;
      warn(fmt::format("{}; falling back to {}", error.what(), paths[i + 1].string()));
    }
  }
  return std::nullopt;
}

[[noreturn]] void nothing_there(const fs::path& path) {
  throw IoError({.where = path.string(),
                 .what = is_folder(path) ? "no checkpoint in this folder" : "no such file or folder",
                 .got = "",
                 .expected = "a checkpoint or the folder of a run",
                 .hint = ""});
}

}  // namespace

RunFolder::RunFolder(fs::path path)
    : path_(std::move(path)), descriptor_(try_open(path_, O_RDONLY | O_DIRECTORY)) {
  if (!descriptor_.valid()) throw_io_error(path_, "can't open the folder", errno);
  // The lock goes with the process, however it ends. Where there are no locks (some network file systems)
  // nobody is kept out.
  if (::flock(descriptor_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw IoError({.where = path_.string(),
                   .what = "another qtrain process writes to this folder",
                   .got = "",
                   .expected = "",
                   .hint = "wait for it, or take another --output"});
}

void RunFolder::require_fresh(const fs::path& path) {
  if (!is_there(path)) return;
  if (!is_folder(path))
    throw IoError({.where = path.string(),
                   .what = "the output folder is a file",
                   .got = "",
                   .expected = "a new or empty folder",
                   .hint = ""});
  std::error_code error;
  const bool empty = fs::is_empty(path, error);
  if (error) throw_io_error(path, "can't read the output folder", error.value());
  if (!empty)
    throw ValueError({.where = path.string(),
                      .what = "the output folder is not empty",
                      .got = "",
                      .expected = "a new or empty folder",
                      .hint = fmt::format("--resume {} goes on with a run", path.string())});
}

RunFolder RunFolder::create(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw_io_error(path, "can't make the output folder", error.value());
  RunFolder folder(path);
  require_fresh(path);
  return folder;
}

RunFolder RunFolder::reopen(const fs::path& path) {
  if (!is_folder(path)) nothing_there(path);
  return RunFolder(path);
}

void RunFolder::write_settings(const std::string& text) const {
  write_file_atomically(settings_file(path_), std::as_bytes(std::span(text)));
}

void RunFolder::promote_next() const {
  if (is_there(last())) rename_file(last(), path_ / previous_name);
  rename_file(path_ / next_name, last());
  flush_renames();
}

void RunFolder::adopt(const fs::path& checkpoint) const {
  if (checkpoint.filename() == next_name) promote_next();
  if (checkpoint.filename() != previous_name) return;
  rename_file(path_ / previous_name, last());
  flush_renames();
}

void RunFolder::rotate(const std::function<void(const fs::path&)>& write) const {
  write(path_ / next_name);
  promote_next();
}

void RunFolder::flush_renames() const {
  if (::fsync(descriptor_.get()) != 0 && errno != EINVAL)
    throw_io_error(path_, "can't flush to the disk", errno);
}

fs::path settings_file(const fs::path& folder) {
  return folder / "config.toml";
}

std::optional<Checkpoint> newest_checkpoint(const fs::path& path, const Warn& warn) {
  if (is_folder(path)) {
    auto found = first_readable(existing(path, {next_name, last_name, previous_name}), warn);
    if (!found && !is_there(settings_file(path))) nothing_there(path);
    return found;
  }
  if (!is_there(path)) nothing_there(path);
  std::vector<fs::path> paths{path};
  const fs::path previous = path.parent_path() / previous_name;
  if (path.filename() == last_name && is_there(previous)) paths.push_back(previous);
  return first_readable(paths, warn);
}

Checkpoint best_checkpoint(const fs::path& path, const Warn& warn) {
  auto found =
      first_readable(is_folder(path) ? existing(path, {best_name, next_name, last_name, previous_name})
                                     : std::vector<fs::path>{path},
                     warn);
  if (!found) nothing_there(path);
  return std::move(*found);
}

}  // namespace qtrain::cli
