// What the tests of whole runs share: the real program as a child process, and small data sets.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "engine/io/tensor_file.h"

namespace qtrain::runs {

using Arguments = std::vector<std::string>;

// `parts` joined: arguments are mostly built of a common beginning and a few of one's own.
Arguments join(std::initializer_list<Arguments> parts);

struct Result {
  int status = -1;  // as shells report it: 128 + the signal for a process that a signal ended
  bool signalled = false;
  std::string out;
  std::string err;
};

// `qtrain` of the environment variable QTRAIN_BINARY, with one compute thread and an empty cache folder.
class Child {
 public:
  // `file_limit`: the largest file it may write, in bytes; 0: no limit.
  explicit Child(const Arguments& arguments, std::size_t file_limit = 0);
  ~Child();  // kills what still runs
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  bool running();
  void signal(int number);
  Result wait();

 private:
  void reap(bool block);

  pid_t process_ = -1;
  bool ended_ = false;
  int raw_status_ = 0;
  std::filesystem::path folder_;
};

Result qtrain(const Arguments& arguments, std::size_t file_limit = 0);

// A folder of its own, gone afterwards.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);
std::vector<std::string> lines_of(const std::string& text);

// The rows of a CSV file without what depends on the clock: its last columns.
std::vector<std::string> timeless_rows(const std::string& path);

// `count` training and 16 validation images of 16x16 in four classes that can be told apart. Returns what
// --data takes.
std::string write_tensor_data(const std::string& path, std::int64_t count = 48);

// Flags of a run on such data that takes a moment: batches of 8.
Arguments quick_run(const std::string& data, const std::string& output);

}  // namespace qtrain::runs
