// Listings of folders, fresh and kept.
#include "data/sets/folder_index.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

#include "data/sets/image_folder.h"
#include "engine/core/error.h"
#include "engine/io/atomic_file.h"
#include "tests/data/ordinary_user.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

class FolderIndexTest : public ::testing::Test {
 protected:
  FolderIndexTest() {
    for (const char* file :
         {"train/cat/1.jpg", "train/cat/deep/er/2.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"})
      put(root() / file, bytes_of(file));
    fs::create_directories(root() / "train/dog/empty");
    settle();
  }

  fs::path root() const { return folder_.path() / "set"; }
  fs::path indices() const { return folder_.path() / "cache" / "indices"; }
  fs::path index_file() const { return FolderIndex(indices(), root() / "train").path(); }

  // Folders as they are when nobody has touched them for a day.
  void settle() const {
    const auto before = fs::file_time_type::clock::now() - std::chrono::hours(24);
    for (const auto& entry : fs::recursive_directory_iterator(root()))
      if (entry.is_directory()) fs::last_write_time(entry.path(), before);
  }

  std::vector<std::string> open() const {
    const auto set = open_image_folder(root(), Split::train, {.folder = indices(), .least_files = 0});
    std::vector<std::string> files;
    Record record;
    for (std::size_t i = 0; i < set->size(); ++i) {
      set->fetch(i, record);
      EXPECT_EQ(record.name, set->describe(i));
      files.push_back(std::to_string(record.label) + ":" +
                      fs::relative(record.name, root() / "train").string());
    }
    return files;
  }

  // Whether the next opening finds its index valid.
  bool is_valid() const { return FolderIndex(indices(), root() / "train").load(2).has_value(); }

  const std::vector<std::string> all_ = {"0:cat/1.jpg", "0:cat/deep/er/2.jpg", "1:dog/1.jpg"};
  TemporaryFolder folder_;
};

TEST_F(FolderIndexTest, IsWrittenOnceAndRead) {
  EXPECT_FALSE(is_valid());
  EXPECT_EQ(open(), all_);
  ASSERT_TRUE(is_valid());
  const auto written = fs::last_write_time(index_file());
  EXPECT_EQ(open(), all_);
  EXPECT_EQ(fs::last_write_time(index_file()), written);
  EXPECT_FALSE(FolderIndex(indices(), root() / "train").load(3)) << "of two classes";
  EXPECT_FALSE(FolderIndex(indices(), root() / "val").load(2)) << "another split";
}

// What proves that the list comes from the index: it names a file of which the folder knows nothing.
TEST_F(FolderIndexTest, NothingIsListedWhereTheIndexIsValid) {
  const FolderIndex index(indices(), root() / "train");
  FolderListing listing = list_classes(root() / "train", {"cat", "dog"});
  listing.names.replace(0, 5, "9.jpg");
  index.save(listing, std::time(nullptr));
  const auto set = open_image_folder(root(), Split::train, {.folder = indices(), .least_files = 0});
  EXPECT_EQ(set->describe(0), (root() / "train/cat/9.jpg").string());
}

TEST_F(FolderIndexTest, EveryChangeOfAFolderMakesItInvalid) {
  const auto expect_noticed = [&](const char* what, const std::function<void()>& change,
                                  const std::vector<std::string>& expected) {
    settle();
    open();
    ASSERT_TRUE(is_valid()) << what;
    change();
    EXPECT_FALSE(is_valid()) << what;
    EXPECT_EQ(open(), expected) << what;
  };
  const fs::path train = root() / "train";
  expect_noticed("added", [&] { put(train / "dog/0.jpg", bytes_of("x")); },
                 {"0:cat/1.jpg", "0:cat/deep/er/2.jpg", "1:dog/0.jpg", "1:dog/1.jpg"});
  expect_noticed(
      "removed", [&] { fs::remove(train / "dog/0.jpg"); }, all_);
  expect_noticed("renamed", [&] { fs::rename(train / "cat/deep/er/2.jpg", train / "cat/deep/er/3.jpg"); },
                 {"0:cat/1.jpg", "0:cat/deep/er/3.jpg", "1:dog/1.jpg"});
  expect_noticed("added where there was nothing", [&] { put(train / "dog/empty/7.jpg", bytes_of("x")); },
                 {"0:cat/1.jpg", "0:cat/deep/er/3.jpg", "1:dog/1.jpg", "1:dog/empty/7.jpg"});
  expect_noticed("folder removed", [&] { fs::remove_all(train / "dog/empty"); },
                 {"0:cat/1.jpg", "0:cat/deep/er/3.jpg", "1:dog/1.jpg"});
  // A program that restores time stamps, as rsync and tar do, doesn't hide a change.
  expect_noticed(
      "added with an old time stamp",
      [&] {
        struct stat before {};
        ASSERT_EQ(::stat((train / "cat").c_str(), &before), 0);
        const auto time = fs::last_write_time(train / "cat");
        put(train / "cat/5.jpg", bytes_of("x"));
        struct stat after = before;
        while (FolderStamp(after) == FolderStamp(before)) {  // the system's clock advances in steps
          fs::last_write_time(train / "cat", time);
          ASSERT_EQ(::stat((train / "cat").c_str(), &after), 0);
        }
        EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
      },
      {"0:cat/1.jpg", "0:cat/5.jpg", "0:cat/deep/er/3.jpg", "1:dog/1.jpg"});
  expect_noticed("another folder in its place",
                 [&] {
                   fs::rename(train / "cat", root() / "old");
                   put(train / "cat/8.jpg", bytes_of("x"));
                 },
                 {"0:cat/8.jpg", "1:dog/1.jpg"});
}

TEST_F(FolderIndexTest, ADamagedIndexIsMadeAnew) {
  open();
  const std::vector<std::byte> whole = qtrain::read_file(index_file());
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{20}, std::size_t{30}, whole.size() / 2, whole.size() - 1}) {
    std::vector<std::byte> damaged = whole;
    damaged[at] ^= std::byte{1};
    put(index_file(), damaged);
    EXPECT_FALSE(is_valid()) << at;
    EXPECT_EQ(open(), all_);
    EXPECT_TRUE(is_valid());
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{10}, std::size_t{60}, whole.size() - 1}) {
    put(index_file(), {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
    EXPECT_FALSE(is_valid()) << size;
    EXPECT_EQ(open(), all_);
  }
  std::vector<std::byte> longer = whole;
  longer.push_back({});
  put(index_file(), longer);
  EXPECT_FALSE(is_valid());
}

TEST_F(FolderIndexTest, FoldersThatMayStillChangeAreNotKept) {
  fs::last_write_time(root() / "train/cat/deep", fs::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_EQ(open(), all_);
  EXPECT_FALSE(fs::exists(index_file()));
}

TEST_F(FolderIndexTest, SmallSetsAndSwitchedOffOnesLeaveNothingBehind) {
  open_image_folder(root(), Split::train, {.folder = indices(), .least_files = 4});
  open_image_folder(root(), Split::train, {});
  EXPECT_FALSE(fs::exists(indices()));
}

TEST_F(FolderIndexTest, AFolderThatCannotBeWrittenIsNoError) {
  put(folder_.path() / "cache", bytes_of("a file where the folder should be"));
  EXPECT_EQ(open(), all_);
  fs::remove(folder_.path() / "cache");
  fs::create_directories(indices());
  fs::permissions(indices(), fs::perms(0555));
  {
    const OrdinaryUser anybody;
    if (anybody.is_one()) {
      EXPECT_EQ(open(), all_);
      EXPECT_FALSE(is_valid());
    }
  }
  fs::remove_all(indices());
  fs::create_directories(index_file());  // a folder where the file should be
  EXPECT_EQ(open(), all_);
}

TEST_F(FolderIndexTest, ProcessesAtOnceLeaveAWholeIndex) {
  std::vector<pid_t> processes;
  for (int i = 0; i < 4; ++i) {
    const pid_t process = ::fork();
    if (process == 0) {
      bool right = true;
      for (int round = 0; round < 10; ++round) {
        fs::remove(index_file());
        right = right && open() == all_;
      }
      ::_exit(right ? 0 : 1);
    }
    processes.push_back(process);
  }
  for (const pid_t process : processes) {
    int status = -1;
    ::waitpid(process, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(open(), all_);
  EXPECT_TRUE(is_valid());
  EXPECT_EQ(std::distance(fs::directory_iterator(indices()), fs::directory_iterator()), 1) << "no leftovers";
}

TEST_F(FolderIndexTest, LinksThatLeadNowhereOrInCircles) {
  const fs::path cat = root() / "train/cat";
  fs::create_symlink("loop.jpg", cat / "loop.jpg");
  fs::create_symlink(root() / "nowhere", cat / "nowhere.jpg");
  const auto set = open_image_folder(root(), Split::train, {});
  Record record;
  ASSERT_EQ(set->size(), 5U) << "they count as files, so that reading them tells";
  EXPECT_TRUE(contains(message_of<IoError>([&] { set->fetch(1, record); }), "cat/loop.jpg] can't open"));

  fs::create_directory_symlink(root() / "train", root() / "train/dog/up");
  EXPECT_TRUE(contains(message_of<FormatError>([&] { open_image_folder(root(), Split::train, {}); }),
                       "contains itself"));
}

TEST_F(FolderIndexTest, ALinkToTheSameFolderFromTwoPlacesIsNoCircle) {
  put(folder_.path() / "shared/7.jpg", bytes_of("x"));
  for (const char* place : {"train/cat/a", "train/cat/b", "train/dog/a"})
    fs::create_directory_symlink(folder_.path() / "shared", root() / place);
  EXPECT_EQ(open_image_folder(root(), Split::train, {})->size(), 6U);
}

TEST_F(FolderIndexTest, AFolderThatCannotBeReadNamesItself) {
  const fs::path closed = root() / "train/dog/closed";
  fs::create_directories(closed);
  fs::permissions(closed, fs::perms::none);
  {
    const OrdinaryUser anybody;
    EXPECT_TRUE(!anybody.is_one() ||
                contains(message_of<IoError>([&] { open_image_folder(root(), Split::train, {}); }),
                         "dog/closed] can't list the folder"));
  }
  fs::permissions(closed, fs::perms::owner_all);
}

TEST_F(FolderIndexTest, AFolderNamedLikeAnImageIsAFolder) {
  fs::create_directories(root() / "train/dog/x.JPEG");
  EXPECT_EQ(open_image_folder(root(), Split::train, {})->size(), 3U) << "empty, it is nothing";
  put(root() / "train/dog/x.JPEG/1.jpg", bytes_of("x"));
  EXPECT_EQ(open_image_folder(root(), Split::train, {})->size(), 4U);
}

TEST_F(FolderIndexTest, AFileThatDisappearsNamesItself) {
  const auto set = open_image_folder(root(), Split::train, {});
  fs::remove(root() / "train/dog/1.jpg");
  Record record;
  EXPECT_TRUE(
      contains(message_of<IoError>([&] { set->fetch(2, record); }), "dog/1.jpg] can't open the file"));
  EXPECT_EQ(record.label, 1);
}

TEST(ForEachInParallelTest, TheLowestErrorIsReportedAndAllAreCalled) {
  std::vector<std::atomic<int>> calls(1000);
  for_each_in_parallel(calls.size(), [&](std::size_t i) { ++calls[i]; });
  for (const auto& count : calls) EXPECT_EQ(count, 1);
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(message_of<ValueError>([] {
                for_each_in_parallel(100, [](std::size_t i) {
                  if (i % 10 == 7) throw ValueError({.where = std::to_string(i), .what = "wrong"});
                });
              }),
              "[7] wrong");
  }
  for_each_in_parallel(0, [](std::size_t) { FAIL(); });
}

}  // namespace
}  // namespace qtrain::data
