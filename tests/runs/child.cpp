#include "tests/runs/child.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "engine/core/rng.h"

namespace qtrain::runs {
namespace {

namespace fs = std::filesystem;

fs::path fresh_folder() {
  static std::atomic<int> number{0};
  fs::path path = fs::temp_directory_path() /
                  ("qtrain-run-test-" + std::to_string(::getpid()) + "-" + std::to_string(number++));
  fs::create_directories(path);
  return path;
}

std::string binary() {
  const char* const path = std::getenv("QTRAIN_BINARY");
  if (path == nullptr) throw std::runtime_error("QTRAIN_BINARY does not name the program to test");
  return path;
}

void redirect(int descriptor, const fs::path& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ::dup2(file, descriptor) < 0) ::_exit(127);
  ::close(file);
}

void clear_away(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

}  // namespace

Arguments join(std::initializer_list<Arguments> parts) {
  Arguments all;
  for (const Arguments& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Child::Child(const Arguments& arguments, std::size_t file_limit) : folder_(fresh_folder()) {
  std::vector<std::string> words = join({{binary()}, arguments});
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const fs::path out = folder_ / "out";
  const fs::path err = folder_ / "err";
  process_ = ::fork();
  if (process_ < 0) throw std::runtime_error("fork failed");
  if (process_ > 0) return;
  ::setenv("OMP_NUM_THREADS", "1", 1);
  ::setenv("OMP_WAIT_POLICY", "passive", 1);  // other tests run beside this one
  ::setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  redirect(STDOUT_FILENO, out);
  redirect(STDERR_FILENO, err);
  if (file_limit > 0) {
    const rlimit limit{file_limit, file_limit};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ::execv(pointers[0], pointers.data());
  ::_exit(127);
}

Child::~Child() {
  if (!ended_) {
    ::kill(process_, SIGKILL);
    reap(true);
  }
  clear_away(folder_);
}

void Child::reap(bool block) {
  if (!ended_ && ::waitpid(process_, &raw_status_, block ? 0 : WNOHANG) == process_) ended_ = true;
}

bool Child::running() {
  reap(false);
  return !ended_;
}

void Child::signal(int number) {
  if (running()) ::kill(process_, number);
}

Result Child::wait() {
  reap(true);
  Result result;
  result.signalled = WIFSIGNALED(raw_status_);
  result.status = result.signalled ? 128 + WTERMSIG(raw_status_) : WEXITSTATUS(raw_status_);
  result.out = read_text(folder_ / "out");
  result.err = read_text(folder_ / "err");
  return result;
}

Result qtrain(const Arguments& arguments, std::size_t file_limit) {
  return Child(arguments, file_limit).wait();
}

Folder::Folder() : path_(fresh_folder()) {}

Folder::~Folder() {
  clear_away(path_);
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_text(const fs::path& path, const std::string& text) {
  std::error_code ignored;
  fs::create_directories(path.parent_path(), ignored);
  std::ofstream(path, std::ios::binary) << text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> timeless_rows(const std::string& path) {
  std::vector<std::string> rows = lines_of(read_text(path));
  const int timing = path.ends_with("epochs.csv") ? 4 : 2;
  for (std::string& row : rows)
    for (int i = 0; i < timing; ++i) row.erase(std::min(row.rfind(','), row.size()));
  return rows;
}

std::string write_tensor_data(const std::string& path, std::int64_t count) {
  constexpr std::int64_t side = 16;
  constexpr std::int64_t classes = 4;
  TensorMap tensors;
  for (const auto& [prefix, images, seed] :
       {std::tuple{std::string(), count, 1U}, std::tuple{std::string("val_"), std::int64_t{16}, 2U}}) {
    RandomStream random(seed, RandomPurpose::generate);
    std::vector<std::uint8_t> pixels;
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < images; ++i) {
      const std::int64_t label = i % classes;
      labels.push_back(label);
      for (std::int64_t p = 0; p < 3 * side * side; ++p)
        pixels.push_back(
            static_cast<std::uint8_t>(40 * label + static_cast<std::int64_t>(random.below(130))));
    }
    tensors[prefix + "images"] =
        Tensor::from_values<std::uint8_t>({images, 3, side, side}, std::span<const std::uint8_t>(pixels));
    tensors[prefix + "labels"] =
        Tensor::from_values<std::int64_t>({images}, std::span<const std::int64_t>(labels));
  }
  save_tensors(path, tensors);
  return "tensors:" + path;
}

Arguments quick_run(const std::string& data, const std::string& output) {
  return {"--model", "resnet20", "--data", data, "--batch-size", "8", "--lr", "0.02", "--output", output};
}

}  // namespace qtrain::runs
