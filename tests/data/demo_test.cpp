#include "data/sets/demo.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "data/loader/sample_reader.h"
#include "data/sets/demo_render.h"
#include "data/sets/open.h"
#include "engine/core/error.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr DemoCounts small{.train = 40, .val = 20};

std::map<std::string, std::vector<std::byte>> contents(const fs::path& folder) {
  std::map<std::string, std::vector<std::byte>> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file())
      read_file(entry.path(), files[entry.path().lexically_relative(folder).string()]);
  }
  return files;
}

std::size_t count_generated(const fs::path& folder) {
  std::size_t count = 0;
  ensure_demo_set(
      folder, [&](std::size_t, std::size_t) { ++count; }, small, 2);
  return count;
}

TEST(Demo, SameFilesWhateverTheThreads) {
  const TemporaryFolder folder;
  const auto one = contents(ensure_demo_set(folder.path() / "one", {}, small, 1));
  const auto four = contents(ensure_demo_set(folder.path() / "four", {}, small, 4));
  EXPECT_EQ(one.size(), 61U);  // images and the marker
  EXPECT_TRUE(one == four);
}

TEST(Demo, IsAnImageFolderOfTenClasses) {
  const TemporaryFolder folder;
  const fs::path path = ensure_demo_set(folder.path() / "set", {}, small, 2);
  for (const Split split : {Split::train, Split::val}) {
    const auto set = open_dataset(path.string(), split);
    EXPECT_EQ(set->size(), split == Split::train ? 40U : 20U);
    EXPECT_EQ(set->classes(), 10);
    for (std::size_t i = 0; i < set->size(); ++i) {
      const Sample sample = load_sample(*set, i);
      EXPECT_EQ(sample.label, static_cast<std::int64_t>(i * 10 / set->size()));
      EXPECT_GE(std::min(sample.image.width, sample.image.height), 72);
      EXPECT_LE(std::max(sample.image.width, sample.image.height), 96);
    }
  }
}

TEST(Demo, PicturesDifferBetweenSplitsAndIndices) {
  const Image a = render_demo_image(0, Split::train, 0);
  EXPECT_EQ(a.rgb, render_demo_image(0, Split::train, 0).rgb);
  EXPECT_NE(a.rgb, render_demo_image(0, Split::val, 0).rgb);
  EXPECT_NE(a.rgb, render_demo_image(0, Split::train, 1).rgb);
}

TEST(Demo, IsMadeOnceAndAgainWhenDamaged) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "cache" / "set";
  EXPECT_EQ(count_generated(path), 60U);
  EXPECT_EQ(count_generated(path), 0U);
  const auto whole = contents(path);
  const fs::path victim = path / "train" / "ripples" / "00009.jpg";
  const auto damage = [&](const std::function<void()>& action) {
    action();
    EXPECT_EQ(count_generated(path), 60U);
    EXPECT_TRUE(contents(path) == whole);
  };
  damage([&] { fs::remove(victim); });
  damage([&] { fs::resize_file(victim, 100); });
  damage([&] { put(path / "val" / "ripples" / "more.jpg", bytes_of("x")); });
  damage([&] { fs::remove(path / ".demo-set"); });
  damage([&] { put(path / ".demo-set", bytes_of("qtrain demo set 0\n")); });
  damage([&] { fs::remove_all(path / "val"); });
  damage([&] {
    fs::remove_all(path);
    put(path, bytes_of("a file in the way"));
  });
  damage([&] {  // a killed process's leftovers
    fs::remove_all(path);
    put(folder.path() / "cache" / "set.tmp.new" / "train" / "x" / "y.jpg", bytes_of("x"));
  });
  std::size_t left = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder.path() / "cache")) ++left;
  EXPECT_EQ(left, 2U);  // the set and its lock
}

TEST(Demo, ConcurrentCallersShareOneSet) {
  const TemporaryFolder folder;
  std::atomic<std::size_t> generated{0};
  {
    std::vector<std::jthread> callers;
    for (int i = 0; i < 4; ++i) {
      callers.emplace_back([&] { generated += count_generated(folder.path() / "set"); });
    }
  }
  EXPECT_EQ(generated, 60U);
  EXPECT_EQ(open_dataset((folder.path() / "set").string(), Split::train)->size(), 40U);
}

TEST(Demo, AFailureLeavesNothingBehind) {
  const TemporaryFolder folder;
  const auto fail = [](std::size_t done, std::size_t) {
    if (done == 7) throw IoError({.where = "disk", .what = "full"});
  };
  EXPECT_THROW(ensure_demo_set(folder.path() / "set", fail, small, 2), IoError);
  EXPECT_FALSE(fs::exists(folder.path() / "set"));
  EXPECT_FALSE(fs::exists(folder.path() / "set.tmp.new"));
  put(folder.path() / "file", bytes_of("x"));
  EXPECT_THROW(ensure_demo_set(folder.path() / "file" / "set", {}, small, 2), IoError);
}

TEST(Demo, FolderFollowsTheEnvironment) {
  const char* old_cache = std::getenv("XDG_CACHE_HOME");
  const std::string saved = old_cache == nullptr ? "" : old_cache;
  ::setenv("XDG_CACHE_HOME", "/some/cache", 1);
  EXPECT_EQ(demo_folder(), fs::path("/some/cache/qtrain/demo-" + std::to_string(demo_version)));
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  if (std::getenv("HOME") != nullptr) {
    EXPECT_EQ(demo_folder(), fs::path(std::getenv("HOME")) / ".cache/qtrain" / demo_folder().filename());
  }
  saved.empty() ? ::unsetenv("XDG_CACHE_HOME") : ::setenv("XDG_CACHE_HOME", saved.c_str(), 1);
}

}  // namespace
}  // namespace qtrain::data
