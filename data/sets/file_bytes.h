// Whole files in memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace qtrain::data {

// Reads a file into `bytes`, whose memory is reused. Throws IoError, which names the file and the system's
// reason: missing, not readable, a folder or a device, larger than `limit`.
void read_file(const std::string& path, std::vector<std::byte>& bytes,
               std::size_t limit = std::size_t{1} << 30);

// Creates or replaces a file; throws IoError.
void write_file(const std::filesystem::path& path, const std::vector<std::byte>& bytes);

}  // namespace qtrain::data
