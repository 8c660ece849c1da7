// A run that was stopped, killed or damaged goes on as if nothing had happened: its numbers equal those of an
// uninterrupted run, compared with ==.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Resume : public ::testing::Test {
 protected:
  const Arguments recipe_{"--epochs", "4", "--quant", "sat", "--augment", "cifar", "--workers", "1"};

  Arguments fresh(const std::string& name, const Arguments& more = {}) {
    return join({quick_run(data_, folder_ / name), recipe_, more});
  }
  Arguments resumed(const std::string& name, const Arguments& more = {}) {
    return join({{"--resume", folder_ / name}, more});
  }
  Result done(const Arguments& arguments) {
    Result result = qtrain(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    return result;
  }
  std::vector<std::string> rows(const std::string& name) {
    return join(
        {timeless_rows(folder_ / (name + "/steps.csv")), timeless_rows(folder_ / (name + "/epochs.csv"))});
  }
  // Metrics, network and optimizer of two runs are the same to the last bit.
  void expect_same(const std::string& name, const std::string& other) {
    EXPECT_EQ(rows(name), rows(other));
    for (const char* file : {"/last.safetensors", "/best.safetensors"}) {
      const TensorMap a = load_tensors(folder_ / (name + file));
      const TensorMap b = load_tensors(folder_ / (other + file));
      ASSERT_EQ(a.size(), b.size());
      for (const auto& [key, tensor] : a) {
        if (tensor.dtype() != DType::f32) continue;
        EXPECT_EQ(tensor.values<float>(), b.at(key).values<float>()) << key;
      }
    }
  }
  // Waits until steps.csv holds `count` steps or the child has ended.
  void wait_for_steps(Child& child, const std::string& name, std::size_t count) {
    while (child.running() && timeless_rows(folder_ / (name + "/steps.csv")).size() < count + 1)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void damage(const std::string& path, std::size_t at) {
    std::string bytes = read_text(path);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    write_text(path, bytes);
  }

  Folder folder_;
  std::string data_ = write_tensor_data(folder_ / "data.safetensors");
};

TEST_F(Resume, AfterACleanStopAnywhereInAnEpoch) {
  done(fresh("straight"));
  done(fresh("stopped", {"--max-steps", "2"}));
  for (const char* step : {"6", "9", "17", "18", "0"}) done(resumed("stopped", {"--max-steps", step}));
  expect_same("stopped", "straight");
}

TEST_F(Resume, WithEveryOptimizer) {
  for (const std::string optimizer : {"adam", "adamw", "rmsprop"}) {
    const Arguments more{"--optimizer", optimizer, "--lr", "0.001", "--epochs", "2"};
    done(fresh(optimizer, more));
    done(fresh(optimizer + "-stopped", join({more, {"--max-steps", "7"}})));
    done(resumed(optimizer + "-stopped", {"--max-steps", "0"}));
    expect_same(optimizer + "-stopped", optimizer);
  }
}

TEST_F(Resume, WithEveryAugmentation) {
  const Arguments more{"--epochs",
                       "3",
                       "--drop-last",
                       "off",
                       "--batch-size",
                       "9",
                       "--vflip",
                       "0.5",
                       "--padding-mode",
                       "reflect",
                       "--rand-augment",
                       "2,9",
                       "--color-jitter",
                       "0.4,0.4,0.4,0.1",
                       "--lighting",
                       "0.1",
                       "--random-erasing",
                       "0.5",
                       "--random-erasing-mode",
                       "pixel",
                       "--mixup",
                       "0.8",
                       "--cutmix",
                       "1",
                       "--label-smoothing",
                       "0.1"};
  done(fresh("straight", more));
  done(fresh("stopped", join({more, {"--max-steps", "4"}})));
  done(resumed("stopped", {"--max-steps", "8", "--workers", "3"}));
  done(resumed("stopped", {"--max-steps", "0"}));
  expect_same("stopped", "straight");
}

TEST_F(Resume, SignalsFinishTheStepAndSave) {
  done(fresh("straight"));
  for (const auto& [signal, status] : {std::pair{SIGTERM, 143}, std::pair{SIGINT, 130}}) {
    const std::string name = "signal" + std::to_string(signal);
    Child child(fresh(name));
    wait_for_steps(child, name, 3);
    child.signal(signal);
    const Result result = child.wait();
    EXPECT_EQ(result.status, status) << result.err;
    EXPECT_FALSE(result.signalled);
    EXPECT_TRUE(has(result.out, "qtrain --resume " + folder_ / name)) << result.out;
    const std::size_t written = timeless_rows(folder_ / (name + "/steps.csv")).size() - 1;
    const Result rest = done(resumed(name));
    EXPECT_TRUE(has(rest.out, "after step " + std::to_string(written) + ":")) << rest.out;
    expect_same(name, "straight");
  }
}

TEST_F(Resume, BeforeTheFirstCheckpointAndAfterTheLastEpoch) {
  done(fresh("straight"));
  fs::create_directories(folder_ / "early");
  fs::copy_file(folder_ / "straight/config.toml", folder_ / "early/config.toml");
  const Result early = done(resumed("early"));
  EXPECT_TRUE(has(early.err, "warning: ") && has(early.err, "no checkpoint yet")) << early.err;
  expect_same("early", "straight");
  const Result late = done(resumed("early"));
  EXPECT_TRUE(has(late.out, "result      top-1")) << late.out;
  expect_same("early", "straight");
}

TEST_F(Resume, FallsBackFromADamagedCheckpointInOneLine) {
  done(fresh("straight"));
  done(fresh("a", {"--max-steps", "14", "--checkpoint-every", "2"}));
  const std::string last = folder_ / "a/last.safetensors";
  damage(last, fs::file_size(last) - 100);
  const Result flipped = done(resumed("a", {"--max-steps", "15"}));
  EXPECT_EQ(lines_of(flipped.err).size(), 1U) << flipped.err;
  for (const char* part :
       {"warning: ", "last.safetensors", "checksum", "falling back to", "previous.safetensors"})
    EXPECT_TRUE(has(flipped.err, part)) << part << "\n" << flipped.err;
  EXPECT_TRUE(has(flipped.out, "after step 12:")) << flipped.out;

  fs::resize_file(last, fs::file_size(last) / 2);
  const Result cut = done(resumed("a", {"--max-steps", "0"}));
  EXPECT_EQ(lines_of(cut.err).size(), 1U) << cut.err;
  EXPECT_TRUE(has(cut.err, "falling back to")) << cut.err;
  EXPECT_EQ(rows("a"), rows("straight"));
}

TEST_F(Resume, GoesOnFromTheNewestWhereverTheProcessDiedBetweenTwoRenames) {
  done(fresh("straight"));
  done(fresh("a", {"--max-steps", "14", "--checkpoint-every", "2"}));
  fs::rename(folder_ / "a/last.safetensors", folder_ / "a/next.safetensors");
  EXPECT_TRUE(has(done(resumed("a", {"--max-steps", "0"})).out, "after step 14:"));
  expect_same("a", "straight");
}

TEST_F(Resume, FromTheBestCheckpointKeepsTheLastOneUntilItIsOvertaken) {
  done(fresh("straight"));
  done(fresh("a", {"--max-steps", "14"}));
  fs::copy_file(folder_ / "a/previous.safetensors", folder_ / "a/mine.safetensors");  // of step 12
  const std::string before = read_text(folder_ / "a/last.safetensors");
  const Result result = done({"--resume", folder_ / "a/mine.safetensors", "--max-steps", "12"});
  EXPECT_TRUE(has(result.out, "after step 12:")) << result.out;
  EXPECT_TRUE(read_text(folder_ / "a/previous.safetensors") == before);
  done(resumed("a", {"--max-steps", "0"}));
  EXPECT_EQ(rows("a"), rows("straight"));
}

TEST_F(Resume, RefusesWhenNothingCanBeRead) {
  done(fresh("a", {"--epochs", "1"}));
  for (const char* name : {"a/last.safetensors", "a/previous.safetensors"})
    damage(folder_ / name, fs::file_size(folder_ / name) - 1);
  const std::string before = read_text(folder_ / "a/last.safetensors");
  const Result result = qtrain(resumed("a"));
  EXPECT_EQ(result.status, 2);
  EXPECT_TRUE(has(result.err, "error: [" + folder_ / "a/previous.safetensors")) << result.err;
  EXPECT_TRUE(read_text(folder_ / "a/last.safetensors") == before);
}

TEST_F(Resume, FlagsChangeWhatDoesNotBreakTheRun) {
  done(fresh("a", {"--epochs", "2"}));
  const Result longer = done(resumed("a", {"--epochs", "3", "--lr", "0.001"}));
  EXPECT_TRUE(has(longer.out, "epoch 3/3: ")) << longer.out;
  EXPECT_EQ(timeless_rows(folder_ / "a/epochs.csv").size(), 1 + 3U);
  const Result elsewhere = done(
      join({{"--resume", folder_ / "a/last.safetensors", "--epochs", "4"}, {"--output", folder_ / "b"}}));
  EXPECT_TRUE(has(elsewhere.out, "after step 18:")) << elsewhere.out;
  EXPECT_EQ(timeless_rows(folder_ / "b/steps.csv").size(), 1 + 6U) << "the new folder holds the new steps";
  EXPECT_EQ(timeless_rows(folder_ / "a/steps.csv").size(), 1 + 18U);
}

TEST_F(Resume, FlagsThatBreakTheRunAreRefused) {
  done(fresh("a", {"--epochs", "1"}));
  for (const Arguments& more : std::initializer_list<Arguments>{{"--model", "resnet32"},
                                                                {"--quant", "none"},
                                                                {"--bits", "2"},
                                                                {"--batch-size", "4"},
                                                                {"--optimizer", "adam"},
                                                                {"--seed", "9"}}) {
    const Result result = qtrain(resumed("a", more));
    EXPECT_EQ(result.status, 2) << more[0];
    EXPECT_TRUE(result.err.starts_with("error: [" + more[0] + "] can't change in a resumed run"))
        << result.err;
  }
  EXPECT_EQ(qtrain(resumed("a", {"--bits", "4"})).status, 0) << "the same value is no change";
}

TEST_F(Resume, TwoProcessesDoNotShareAFolder) {
  Child first(fresh("a", {"--epochs", "50"}));
  wait_for_steps(first, "a", 1);
  const Result second = qtrain(resumed("a"));
  EXPECT_EQ(second.status, 2);
  EXPECT_TRUE(has(second.err, "another qtrain process")) << second.err;
}

}  // namespace
}  // namespace qtrain::runs
