// Checkpoints: safetensors files whose metadata holds a checksum over everything else in them, so that a
// damaged file is noticed before its numbers are used. Any safetensors reader opens them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/io/safetensors.h"

namespace qtrain {

// Writes atomically: `path` holds the old checkpoint or the new one, never a part. The metadata keys
// `format`, `version` and `checksum` are added and may not be among the caller's. Also removes temporaries
// that killed processes have left of the same path. Errors as in write_safetensors.
void save_checkpoint(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                     const std::map<std::string, std::string>& metadata);

class CheckpointFile {
 public:
  // Maps and verifies. FormatError when the checksum doesn't match, when it is missing from a file that calls
  // itself a checkpoint, or when a newer version wrote it. A safetensors file of other origin (PyTorch's,
  // say) opens with verified() false.
  static CheckpointFile open(const std::filesystem::path& path);
  static CheckpointFile from(SafetensorsFile file);

  bool verified() const { return verified_; }
  const std::string& name() const { return file_.name(); }
  const std::vector<TensorEntry>& entries() const { return file_.entries(); }
  const TensorEntry* find(std::string_view tensor) const { return file_.find(tensor); }
  const TensorEntry& at(std::string_view tensor) const { return file_.at(tensor); }

  // The metadata as save_checkpoint received it; everything when the file isn't a checkpoint.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  explicit CheckpointFile(SafetensorsFile file) : file_(std::move(file)), metadata_(file_.metadata()) {}

  SafetensorsFile file_;
  std::map<std::string, std::string> metadata_;
  bool verified_ = false;
};

}  // namespace qtrain
