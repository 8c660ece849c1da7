// TensorBoard event files, scalars only. A file is a row of records
//   length (8 bytes) | masked CRC-32C of length (4) | data | masked CRC-32C of data (4)     all little-endian
// whose data is an Event message (tensorboard.proto); the first one holds file_version "brain.Event:2".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/append_file.h"

namespace qtrain::cli {

struct Scalar {
  std::string tag;  // "train/loss"; TensorBoard groups by the part before the slash
  float value = 0;
};

class TensorBoardWriter {
 public:
  // Starts a new file in `folder`, sorted behind those already there. With `resumed_step` > 0, TensorBoard
  // drops the older files' points of later steps. Throws IoError.
  explicit TensorBoardWriter(const std::string& folder, std::int64_t resumed_step = 0);

  void add(std::int64_t step, const std::vector<Scalar>& scalars);  // buffered
  void flush();  // call once an epoch and before a checkpoint is declared saved
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::unique_ptr<AppendFile> file_;
  std::string buffer_;
};

// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), and TFRecord's mask of it: rotated right by 15 bits,
// plus a constant, so that a CRC of data that holds CRCs stays useful.
std::uint32_t crc32c(std::string_view bytes);
std::uint32_t masked_crc32c(std::string_view bytes);

}  // namespace qtrain::cli
