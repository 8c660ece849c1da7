// A file is there whole or not at all: after success, refusal, exceptions and sudden death.
#include "engine/io/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>

#include "engine/core/error.h"
#include "engine/io/file_descriptor.h"
#include "engine/io/safetensors.h"
#include "tests/io/io_test_support.h"

namespace qtrain {
namespace {

using testing::bytes_of;
using testing::message_of;
using testing::TemporaryFolder;

// Runs `body` in a child process and returns its exit status, or 128 + the signal that ended it.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ::_exit(body());
    } catch (...) {  // the child must not carry on as a second test run
      ::_exit(99);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string text_of(const std::filesystem::path& path) {
  const std::vector<std::byte> bytes = read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(AtomicFileTest, WritesInPiecesAndReplaces) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "f", bytes_of("old and longer than the new"));
  {
    AtomicFile file(folder / "f");
    file.write(bytes_of("new "));
    file.write({});
    file.write(bytes_of("text"));
    EXPECT_EQ(text_of(folder / "f"), "old and longer than the new");
    file.commit();
  }
  EXPECT_EQ(text_of(folder / "f"), "new text");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"f"});
}

TEST(AtomicFileTest, WithoutCommitNothingRemains) {
  const TemporaryFolder folder;
  { AtomicFile(folder / "f").write(bytes_of("half")); }
  EXPECT_TRUE(folder.names().empty());
}

TEST(AtomicFileTest, RelativePathAndEmptyFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(in_child([&] {
              std::filesystem::current_path(folder / "");
              write_file_atomically("f", {});
              return read_file("f").empty() ? 0 : 1;
            }),
            0);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"f"});
}

TEST(AtomicFileTest, RefusalsNamePathAndReason) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", bytes_of("x"));
  std::filesystem::create_directory(folder / "folder");
  const auto refusal = [](const std::filesystem::path& path) {
    return message_of<IoError>([&] { write_file_atomically(path, bytes_of("data")); });
  };
  const std::string missing = refusal(folder / "missing/f");
  EXPECT_NE(missing.find("missing/f"), std::string::npos) << missing;
  EXPECT_NE(missing.find("No such file or directory"), std::string::npos) << missing;
  EXPECT_NE(refusal(folder / "file/f").find("Not a directory"), std::string::npos);
  EXPECT_NE(refusal(folder / "folder").find("a folder, not a file"), std::string::npos);
  EXPECT_NE(refusal(folder / "folder/").find("not a file name"), std::string::npos);
  EXPECT_NE(refusal("").find("not a file name"), std::string::npos);
  EXPECT_FALSE(refusal("/proc/qtrain-test").empty());
  EXPECT_NE(refusal("/dev/null").find("not a regular file"), std::string::npos);
  EXPECT_EQ(folder.names().size(), 2U);
}

// RLIMIT_FSIZE takes the disk-full path through the writer: write(2) fails in the middle.
TEST(AtomicFileTest, FullDiskKeepsTheOldFile) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "f", bytes_of("old"));
  const int status = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::vector<std::byte> large(1'000'000);
    const std::string message = message_of<IoError>([&] {
      write_safetensors(folder / "f", {{"t", "U8", {1'000'000}, large}});
    });
    const bool named = message.find("can't write: File too large") != std::string::npos &&
                       message.find((folder / "f").string()) != std::string::npos;
    return named ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(text_of(folder / "f"), "old");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"f"});
}

TEST(AtomicFileTest, FullDiskIsNamedWithAHint) {
  const std::string message = message_of<IoError>([] { throw_io_error("run/last", "can't write", ENOSPC); });
  EXPECT_EQ(
      message,
      "[run/last] can't write: No space left on device; the disk is full: free some space or choose another "
      "folder");
}

// Neither _exit nor SIGKILL runs the destructor.
TEST(AtomicFileTest, DeathInTheMiddleKeepsTheOldFile) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "f", bytes_of("old"));
  EXPECT_EQ(in_child([&] {
              AtomicFile file(folder / "f");
              file.write(bytes_of("new, but never finished"));
              ::_exit(7);
              return 0;
            }),
            7);
  EXPECT_EQ(in_child([&] {
              AtomicFile file(folder / "f");
              file.write(bytes_of("new, but killed"));
              ::raise(SIGKILL);
              return 0;
            }),
            128 + SIGKILL);
  EXPECT_EQ(text_of(folder / "f"), "old");
  EXPECT_EQ(folder.names().size(), 3U);  // two temporaries of dead processes

  std::ofstream(folder / ("f.tmp." + std::to_string(::getpid()))) << "of a living process";
  std::ofstream(folder / "f.tmp.12x") << "not a temporary";
  std::ofstream(folder / "g.tmp.999999999") << "of another file";
  remove_abandoned_temporaries(folder / "f");
  EXPECT_EQ(folder.names().size(), 4U);
  EXPECT_EQ(text_of(folder / "f"), "old");
  remove_abandoned_temporaries(folder / "missing/f");  // no folder, no complaint
}

// Kills a process that saves without pause, at ever different moments: what is at the path is always whole.
TEST(AtomicFileTest, SigkillWhileSavingNeverLeavesAPart) {
  const TemporaryFolder folder;
  const auto path = folder / "f";
  const auto save = [&](std::uint64_t generation) {
    const std::vector<std::uint64_t> values(20'000, generation);
    write_safetensors(path, {{"t", "U64", {20'000}, std::as_bytes(std::span(values))}});
  };
  save(0);
  for (unsigned round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        for (std::uint64_t generation = 1;; ++generation) save(generation);
      } catch (...) {
        ::_exit(99);
      }
    }
    ::usleep(500 + 700 * round);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const SafetensorsFile file = SafetensorsFile::open(path);
    std::vector<std::uint64_t> values(20'000);
    ASSERT_EQ(file.at("t").bytes.size(), values.size() * sizeof(std::uint64_t));
    std::memcpy(values.data(), file.at("t").bytes.data(), file.at("t").bytes.size());
    EXPECT_EQ(std::count(values.begin(), values.end(), values[0]), 20'000) << round;
  }
}

TEST(ReadFileTest, ReadsWholeFilesAndRefusesTheRest) {
  const TemporaryFolder folder;
  const std::vector<std::byte> data(100'001, std::byte{42});
  write_file_atomically(folder / "f", data);
  EXPECT_EQ(read_file(folder / "f"), data);
  EXPECT_FALSE(read_file("/proc/self/status").empty());  // reports a size of 0
  EXPECT_NE(message_of<IoError>([&] { read_file(folder / "none"); }).find("No such file"), std::string::npos);
  EXPECT_NE(message_of<IoError>([&] { read_file(folder / ""); }).find("a folder"), std::string::npos);
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_NE(message_of<IoError>([&] { read_file(folder / "pipe"); }).find("regular"), std::string::npos);
}

TEST(SafetensorsOpen, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "empty", {});
  EXPECT_NE(message_of<FormatError>([&] { SafetensorsFile::open(folder / "empty"); }).find("too short"),
            std::string::npos);
  EXPECT_NE(message_of<IoError>([&] { SafetensorsFile::open(folder / "none"); }).find("No such file"),
            std::string::npos);
  EXPECT_NE(message_of<IoError>([&] { SafetensorsFile::open(folder / ""); }).find("a folder"),
            std::string::npos);
}

}  // namespace
}  // namespace qtrain
