// What the tests of engine/io share: a folder of their own, and safetensors files put together by hand.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>  // mkdtemp

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/rng.h"
#include "engine/io/safetensors.h"

namespace qtrain::testing {

// A folder that exists as long as the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qtrain-io-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed for " + pattern);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      found.push_back(entry.path().filename().string());
    return found;
  }

 private:
  std::filesystem::path path_;
};

inline std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// Length, header and data as they stand; `length` overrides what the header's length field claims.
inline std::vector<std::byte> raw_file(std::string_view header, std::size_t data_bytes,
                                       std::uint64_t length) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, sizeof length);
  text += header;
  text.append(data_bytes, '\x5A');
  return bytes_of(text);
}

inline std::vector<std::byte> raw_file(std::string_view header, std::size_t data_bytes) {
  return raw_file(header, data_bytes, header.size());
}

// The error message of a call, or "" when it doesn't throw E.
template <class E, class F>
std::string message_of(F&& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

inline std::vector<std::byte> random_bytes(RandomStream& random, std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random.below(256));
  return bytes;
}

}  // namespace qtrain::testing
