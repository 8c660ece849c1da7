#include "engine/io/checkpoint_file.h"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "engine/core/error.h"
#include "engine/io/atomic_file.h"
#include "engine/io/checksum.h"

namespace qtrain {
namespace {

constexpr const char* format_key = "format";
constexpr const char* version_key = "version";
constexpr const char* checksum_key = "checksum";
constexpr std::string_view format_name = "qtrain-checkpoint";
constexpr std::string_view current_version = "1";
constexpr std::string_view checksum_prefix = "xxh3-128:";

// Over all metadata but the checksum, then over the tensors in the order of their bytes.
template <class TensorList>
std::string checksum_of(const TensorList& tensors, std::map<std::string, std::string> metadata) {
  metadata.erase(checksum_key);
  Checksum checksum;
  checksum.update_field(std::uint64_t{metadata.size()});
  for (const auto& [key, value] : metadata) {
    checksum.update_field(key);
    checksum.update_field(value);
  }
  checksum.update_field(std::uint64_t{tensors.size()});
  for (const auto& tensor : tensors) {
    checksum.update_field(tensor.name);
    checksum.update_field(tensor.dtype);
    checksum.update_field(std::uint64_t{tensor.shape.size()});
    checksum.update(std::as_bytes(std::span(tensor.shape)));
    checksum.update_field(std::uint64_t{tensor.bytes.size()});
    checksum.update(tensor.bytes);
  }
  return std::string(checksum_prefix) + checksum.hex();
}

std::string value_or_empty(const std::map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : found->second;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                     const std::map<std::string, std::string>& metadata) {
  for (const char* reserved : {format_key, version_key, checksum_key})
    if (metadata.contains(reserved))
      throw ValueError({.where = path.string(),
                        .what = fmt::format("metadata key '{}' is reserved", reserved),
                        .got = "",
                        .expected = "",
                        .hint = "choose another key"});
  std::map<std::string, std::string> complete = metadata;
  complete[format_key] = format_name;
  complete[version_key] = current_version;
  sort_for_writing(tensors);
  complete[checksum_key] = checksum_of(tensors, complete);
  remove_abandoned_temporaries(path);
  write_safetensors(path, std::move(tensors), complete);
}

CheckpointFile CheckpointFile::open(const std::filesystem::path& path) {
  return from(SafetensorsFile::open(path));
}

CheckpointFile CheckpointFile::from(SafetensorsFile file) {
  CheckpointFile checkpoint(std::move(file));
  const auto& all = checkpoint.file_.metadata();
  const std::string checksum = value_or_empty(all, checksum_key);
  const auto fail = [&](std::string what, std::string got, std::string expected, std::string hint) {
    throw FormatError(
        {checkpoint.name(), std::move(what), std::move(got), std::move(expected), std::move(hint)});
  };
  // Either mark makes it a checkpoint, so that damage to one of them can't pass for a file of other origin.
  if (value_or_empty(all, format_key) != format_name && !checksum.starts_with(checksum_prefix))
    return checkpoint;
  const std::string version = value_or_empty(all, version_key);
  if (version != current_version)
    fail("unknown checkpoint version", version.empty() ? "none" : "'" + version + "'",
         "'" + std::string(current_version) + "'",
         "it was written by another version of qtrain, or is damaged");
  const std::string computed = checksum_of(checkpoint.entries(), all);
  if (checksum != computed)
    fail("checksum does not match; the file is damaged", computed, checksum.empty() ? "a checksum" : checksum,
         "use an earlier checkpoint");
  for (const char* own : {format_key, version_key, checksum_key}) checkpoint.metadata_.erase(own);
  checkpoint.verified_ = true;
  return checkpoint;
}

}  // namespace qtrain
