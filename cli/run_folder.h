// The folder of a run and its checkpoints:
//   config.toml            the settings, with everything decided
//   last.safetensors       where the run goes on
//   previous.safetensors   the one before, should the last one get damaged
//   best.safetensors       the best top-1 so far
//   steps.csv, epochs.csv, events.out.tfevents.*
// A new checkpoint is written whole as next.safetensors; then last becomes previous and next becomes last. So
// whenever the process dies, at least the two newest whole checkpoints are there.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cli/checkpoint.h"
#include "engine/io/file_descriptor.h"

namespace qtrain::cli {

class RunFolder {
 public:
  // ValueError or IoError where create() would refuse; makes nothing.
  static void require_fresh(const std::filesystem::path& path);
  // A folder for a new run: made if needed, refused when there is something in it.
  static RunFolder create(const std::filesystem::path& path);
  // The folder of an earlier run. IoError if it isn't one, or another process writes to it.
  static RunFolder reopen(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path last() const { return path_ / "last.safetensors"; }
  std::filesystem::path best() const { return path_ / "best.safetensors"; }

  void write_settings(const std::string& text) const;
  // Makes the checkpoint that a run goes on from the last one, where it wasn't: in the place of a damaged
  // one, or by the renames that a process died before.
  void adopt(const std::filesystem::path& checkpoint) const;
  // Calls write(path) for the new checkpoint and makes it the last one.
  void rotate(const std::function<void(const std::filesystem::path&)>& write) const;

 private:
  explicit RunFolder(std::filesystem::path path);
  void promote_next() const;
  void flush_renames() const;

  std::filesystem::path path_;
  FileDescriptor descriptor_;  // holds the lock, and flushes renames
};

std::filesystem::path settings_file(const std::filesystem::path& folder);

// The newest checkpoint that can be read, of a run folder or at a file's path. Every damaged one on the way
// is reported to `warn` in a line. For a folder that has settings but no checkpoint yet: nothing. IoError
// where there is nothing to go on from, FormatError when all are damaged.
std::optional<Checkpoint> newest_checkpoint(const std::filesystem::path& path,
                                            const std::function<void(const std::string&)>& warn);

// The same for an evaluation, which wants the best one first.
Checkpoint best_checkpoint(const std::filesystem::path& path,
                           const std::function<void(const std::string&)>& warn);

}  // namespace qtrain::cli
