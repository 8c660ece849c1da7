// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes of little-endian header
// length, a JSON header {"name": {"dtype", "shape", "data_offsets"}, "__metadata__": {string: string}}, then
// the tensors' bytes without holes. Shapes and bytes are row-major as in PyTorch; nothing here interprets
// elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qtrain {

// One tensor of an open file. `bytes` lives as long as the file object (or a copy of it) does, and is not
// aligned to the element size: the format doesn't promise it, so read elements with memcpy.
struct TensorEntry {
  std::string name;
  std::string dtype;  // as the format writes it: "F32", "BF16", "I64", "U8", ...
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

// A validated file. Everything that the header claims is checked before the object exists, so the entries can
// be used without further checks. Copies share the bytes.
class SafetensorsFile {
 public:
  // Maps the file read-only. The file must not be truncated while it is in use; replacing it (as AtomicFile
  // does) is harmless. Throws IoError when the system refuses, FormatError when the content breaks a rule.
  static SafetensorsFile open(const std::filesystem::path& path);

  // The same from memory; `name` stands for the file in error messages.
  static SafetensorsFile parse(std::vector<std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  const std::vector<TensorEntry>& entries() const { return entries_; }  // in the order of their bytes
  const TensorEntry* find(std::string_view tensor) const;               // nullptr when there is none
  const TensorEntry& at(std::string_view tensor) const;                 // FormatError when there is none
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  SafetensorsFile(std::string name, std::shared_ptr<const void> owner, std::span<const std::byte> file);

  std::string name_;
  std::shared_ptr<const void> owner_;  // the mapping or the buffer that entries point into
  std::vector<TensorEntry> entries_;
  std::vector<std::size_t> by_name_;  // entry numbers sorted by name
  std::map<std::string, std::string> metadata_;
};

// A tensor to write; `bytes` is borrowed until the call returns.
struct TensorToWrite {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

// Writes a file atomically (see AtomicFile), in the order of the reference library: by falling alignment of
// the dtype, then by name. The same input always gives the same bytes. Throws ValueError for an unknown
// dtype, a size that doesn't fit the shape, a repeated or reserved name or text that isn't UTF-8; IoError
// when the system refuses.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Sorts tensors into the order in which write_safetensors writes them.
void sort_for_writing(std::vector<TensorToWrite>& tensors);

// The bits of one element, or nothing for a dtype that the format doesn't have.
std::optional<unsigned> safetensors_bits(std::string_view dtype);

}  // namespace qtrain
