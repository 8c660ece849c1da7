// A file that only grows. Each append reaches the operating system at once, so that a killed process loses
// nothing it reported, and a full disk is an error at the row it happened on.
#pragma once

#include <string>
#include <string_view>

namespace qtrain::cli {

class AppendFile {
 public:
  // Opens the file at its end, making it if needed. Throws IoError.
  explicit AppendFile(const std::string& path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append(std::string_view bytes);  // all bytes, or IoError
  void sync();                          // to the disk itself

 private:
  std::string path_;
  int descriptor_;
};

}  // namespace qtrain::cli
