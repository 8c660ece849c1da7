// Killed with SIGKILL at 20 random moments, some of them in the middle of saving, and resumed each time: the
// losses equal those of the uninterrupted run, compared with ==.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "engine/core/rng.h"
#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

namespace fs = std::filesystem;

class Kill : public ::testing::Test {
 protected:
  static constexpr int kills = 20;

  std::size_t steps() const { return timeless_rows(folder_ / "killed/steps.csv").size(); }

  // Whether a checkpoint is being written now: its temporary is there.
  bool saving() const {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder_ / "killed", ignored))
      if (entry.path().filename().string().starts_with("next.safetensors.tmp.")) return true;
    return false;
  }

  Arguments arguments() const {
    if (fs::exists(folder_ / "killed/config.toml")) return {"--resume", folder_ / "killed"};
    fs::remove_all(folder_ / "killed");  // died before the run began
    return join({quick_run(data_, folder_ / "killed"), recipe_, {"--checkpoint-every", "1"}});
  }

  // Every third kill waits for a save to be in progress, one comes at a random moment of the start, and the
  // others at a random moment behind a step.
  void kill_somewhere(Child& child, int number) {
    const auto wait = [&](std::uint64_t most) {
      std::this_thread::sleep_for(std::chrono::microseconds(random_.below(most)));
    };
    if (number % 3 == 0) {
      while (child.running() && !saving()) std::this_thread::yield();
    } else if (number % 3 == 1) {
      wait(60'000);
    } else {
      const std::size_t before = steps();
      while (child.running() && steps() <= before) std::this_thread::yield();
      wait(20'000);
    }
    child.signal(SIGKILL);
  }

  const Arguments recipe_{"--epochs", "20", "--quant", "sat", "--augment", "cifar", "--workers", "1"};
  Folder folder_;
  std::string data_ = write_tensor_data(folder_ / "data.safetensors");
  RandomStream random_{2026, RandomPurpose::user};
};

TEST_F(Kill, TwentyTimesAndTheNumbersAreThoseOfAnUninterruptedRun) {
  const Result straight = qtrain(join({quick_run(data_, folder_ / "straight"), recipe_}));
  ASSERT_EQ(straight.status, 0) << straight.err;
  int killed = 0;
  int torn_saves = 0;
  for (int attempt = 0; killed < kills || torn_saves == 0; ++attempt) {
    ASSERT_LT(attempt, 3 * kills) << killed << " kills, " << torn_saves << " of them in a save";
    Child child(arguments());
    kill_somewhere(child, attempt);
    const Result result = child.wait();
    ASSERT_TRUE(result.signalled || result.status == 0) << result.err;
    ASSERT_TRUE(result.signalled) << "the run ended after only " << killed << " kills";
    ++killed;
    torn_saves += saving() ? 1 : 0;
  }
  const Result rest = qtrain(arguments());
  ASSERT_EQ(rest.status, 0) << rest.err;
  for (const char* name : {"steps.csv", "epochs.csv"})
    EXPECT_EQ(timeless_rows(folder_ / ("killed/" + std::string(name))),
              timeless_rows(folder_ / ("straight/" + std::string(name))));
  const TensorMap a = load_tensors(folder_ / "killed/last.safetensors");
  const TensorMap b = load_tensors(folder_ / "straight/last.safetensors");
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [key, tensor] : a) {
    if (tensor.dtype() != DType::f32) continue;
    EXPECT_EQ(tensor.values<float>(), b.at(key).values<float>()) << key;
  }
  EXPECT_FALSE(saving()) << "what killed processes left is cleared away";
  RecordProperty("torn_saves", torn_saves);
}

}  // namespace
}  // namespace qtrain::runs
