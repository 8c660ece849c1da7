// `qtrain pack` as typed, and training on what it made.
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/codec/decode.h"
#include "engine/core/rng.h"
#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string jpeg(int side, std::uint64_t seed) {
  data::Image image{side, side, {}};
  RandomStream random(seed, RandomPurpose::generate);
  for (int i = 0; i < side * side * 3; ++i) image.rgb.push_back(static_cast<std::uint8_t>(random.below(256)));
  const std::vector<std::byte> bytes = data::encode_jpeg(image, 80);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class Pack : public ::testing::Test {
 protected:
  Pack() {
    for (const std::string split : {"train", "val"})
      for (const std::string name : {"a", "b"})
        for (std::uint64_t i = 0; i < 8; ++i)
          write_text(fs::path(images_) / split / name / (std::to_string(i) + ".jpg"), jpeg(48, i));
  }

  Arguments command(const Arguments& more = {}) const {
    return join({{"pack", "--data", images_, "--output", pack_}, more});
  }

  // One line that says all of `parts`; nothing is written.
  void expect_error(const Arguments& arguments, const std::vector<std::string>& parts) {
    const std::string before = read_text(pack_);
    const Result result = qtrain(arguments);
    EXPECT_EQ(result.status, 2) << result.err;
    EXPECT_TRUE(result.err.starts_with("error: ")) << result.err;
    EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
    for (const std::string& part : parts) EXPECT_TRUE(has(result.err, part)) << part << "\n" << result.err;
    EXPECT_TRUE(read_text(pack_) == before);
    EXPECT_EQ(temporaries(), 0U);
  }

  std::size_t temporaries() const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(fs::path(pack_).parent_path()))
      count += has(entry.path().filename().string(), ".tmp.") ? 1 : 0;
    return count;
  }

  Arguments run(const std::string& data, const std::string& name) const {
    return {"--model", "resnet20", "--data", data,   "--image-size", "32",       "--batch-size",
            "8",       "--epochs", "1",      "--lr", "0.01",         "--output", folder_ / name};
  }

  Folder folder_;
  std::string images_ = folder_ / "images";
  std::string pack_ = folder_ / "out/all.pack";
  bool made_ = fs::create_directories(folder_ / "out");
};

TEST_F(Pack, TrainingOnItEqualsTrainingOnTheFolder) {
  const Result result = qtrain(command());
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_TRUE(has(result.out, "16 training and 16 validation images, 0 resized; ")) << result.out;
  EXPECT_TRUE(result.err.empty()) << result.err;
  ASSERT_EQ(qtrain(run(images_, "x")).status, 0);
  ASSERT_EQ(qtrain(run(pack_, "y")).status, 0);
  for (const char* name : {"steps.csv", "epochs.csv"})
    EXPECT_EQ(timeless_rows(folder_ / ("x/" + std::string(name))),
              timeless_rows(folder_ / ("y/" + std::string(name))));
  const Result eval = qtrain({"eval", "--checkpoint", folder_ / "x", "--data", "pack:" + pack_, "--json"});
  ASSERT_EQ(eval.status, 0) << eval.err;
  EXPECT_EQ(nlohmann::json::parse(eval.out)["images"], 16);
}

TEST_F(Pack, MistakesAreOneLine) {
  expect_error({"pack", "--data", images_}, {"--output is missing"});
  expect_error({"pack", "--output", pack_}, {"--data is missing"});
  expect_error(command({"--quality", "80"}), {"--quality", "--shorter-side"});
  expect_error(command({"--shorter-side", "0"}), {"--shorter-side"});
  expect_error(command({"--workers", "0"}), {"--workers"});
  expect_error(command({"--bad-images", "ignore"}), {"--bad-images", "skip"});
  expect_error({"pack", "--data", folder_ / "none", "-o", pack_}, {"none", "missing"});
  expect_error({"pack", "--data", write_tensor_data(folder_ / "t.safetensors"), "-o", pack_},
               {"doesn't consist of image files"});
  expect_error({"pack", "--data", images_, "-o", folder_ / "out"}, {"a folder"});
  expect_error({"pack", "--data", images_, "-o", folder_ / "nowhere/x.pack"}, {"nowhere"});
  expect_error({"pakc", "--data", images_}, {"'pack'"});
  write_text(pack_, "mine");
  expect_error(command(), {"--output", "exists already", "--force"});
  expect_error(command({"--force"}), {"isn't a pack"});
  fs::remove(pack_);
  ASSERT_EQ(qtrain(command()).status, 0);
  expect_error(command(), {"exists already"});
  const std::string before = read_text(pack_);
  EXPECT_EQ(qtrain(command({"--force", "--shorter-side", "24"})).status, 0);
  EXPECT_FALSE(read_text(pack_) == before);
}

TEST_F(Pack, UnreadableImagesAndDamagedPacks) {
  write_text(images_ + "/train/b/3.jpg", "no image");
  expect_error(command(), {"b/3.jpg", "not an image"});
  const Result result = qtrain(command({"--bad-images", "skip"}));
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_TRUE(has(result.out, "bad images  1 left out") && has(result.out, "b/3.jpg")) << result.out;
  const std::string whole = read_text(pack_);
  std::string damaged = whole;
  damaged[1000] = static_cast<char>(damaged[1000] ^ 1);
  write_text(pack_, damaged);
  const Arguments everything{"--drop-last", "off"};
  expect_error(join({run(pack_, "r1"), everything}), {"all.pack: train/a/", "damaged"});
  const Result skipped = qtrain(join({run(pack_, "r2"), everything, {"--bad-images", "skip"}}));
  EXPECT_EQ(skipped.status, 0) << skipped.err;
  EXPECT_TRUE(has(skipped.out, "bad images  1 skipped") && has(skipped.out, "damaged")) << skipped.out;
  write_text(pack_, whole.substr(0, whole.size() - 100));
  expect_error(run(pack_, "r3"), {"all.pack", "cut off"});
  write_text(pack_, "something else");
  expect_error(run("pack:" + pack_, "r4"), {"all.pack", "not a pack"});
}

TEST_F(Pack, AFullDiskIsOneLineAndLosesNothing) {
  ASSERT_EQ(qtrain(command()).status, 0);
  const std::string before = read_text(pack_);
  const Result result = qtrain(command({"--force"}), before.size() / 2);
  EXPECT_EQ(result.status, 2);
  EXPECT_TRUE(result.err.starts_with("error: ") && has(result.err, "all.pack")) << result.err;
  EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  EXPECT_TRUE(read_text(pack_) == before);
  EXPECT_EQ(temporaries(), 0U);
}

// Stopped by a signal as soon as it has begun; one image many times, so that most of it is still to do.
TEST_F(Pack, StoppedOrKilledItLeavesNoPack) {
  write_text(folder_ / "large.jpg", jpeg(600, 1));
  for (int i = 0; i < 1000; ++i)
    fs::create_symlink(folder_ / "large.jpg", images_ + "/train/a/large" + std::to_string(i) + ".jpg");
  for (const int number : {SIGINT, SIGTERM, SIGKILL}) {
    Child child(command({"--workers", "1"}));
    while (child.running() && temporaries() == 0) std::this_thread::yield();
    child.signal(number);
    const Result result = child.wait();
    EXPECT_EQ(result.status, 128 + number) << result.err;
    EXPECT_FALSE(fs::exists(pack_));
    if (number == SIGKILL) continue;
    EXPECT_EQ(temporaries(), 0U);
    EXPECT_EQ(result.err, "stopped: nothing was written\n");
  }
  EXPECT_EQ(temporaries(), 1U) << "nobody could clear it away";
  fs::remove_all(images_ + "/train/a");
  write_text(images_ + "/train/a/1.jpg", jpeg(20, 3));
  EXPECT_EQ(qtrain(command()).status, 0);
  EXPECT_EQ(temporaries(), 0U);
}

}  // namespace
}  // namespace qtrain::runs
