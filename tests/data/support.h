// What the tests of data/ share: a scratch folder, pictures, and JPEG files of every flavour.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/codec/decode.h"
#include "data/sets/file_bytes.h"
#include "engine/core/error.h"
#include "engine/core/rng.h"

namespace qtrain::data {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() /
            ("qtrain-data-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

inline void put(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::filesystem::create_directories(path.parent_path());
  write_file(path, bytes);
}

// Smooth colours that JPEG keeps well.
inline Image smooth_image(int width, int height) {
  Image image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      image.rgb.push_back(static_cast<std::uint8_t>(40 + 160 * x / width));
      image.rgb.push_back(static_cast<std::uint8_t>(60 + 120 * y / height));
      image.rgb.push_back(static_cast<std::uint8_t>(200 - 100 * (x + y) / (width + height)));
    }
  }
  return image;
}

inline Image noise_image(int width, int height, std::uint64_t seed) {
  Image image{width, height, {}};
  RandomStream random(seed, RandomPurpose::user);
  image.rgb.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  for (std::uint8_t& value : image.rgb) value = static_cast<std::uint8_t>(random.next());
  return image;
}

inline Image solid_image(int width, int height, std::uint8_t level) {
  Image image{width, height, {}};
  image.rgb.assign(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3, level);
  return image;
}

// The message of the Error of type E that `action` must throw.
template <class E>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another error: " << error.what();
    return {};
  }
  ADD_FAILURE() << "no error";
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace qtrain::data
