// Runs of several processes that share a data set: --rank and --world-size.
#include <gtest/gtest.h>

#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

class Shard : public ::testing::Test {
 protected:
  // 50 images for three processes: 17, 17 and 16.
  Arguments of(const std::string& rank, const Arguments& more = {}) {
    return join({quick_run(data_, folder_ / ("rank" + rank)),
                 {"--epochs", "2", "--rank", rank, "--world-size", "3", "--augment", "cifar"},
                 more});
  }
  std::vector<std::string> rows(const std::string& name) {
    return join(
        {timeless_rows(folder_ / (name + "/steps.csv")), timeless_rows(folder_ / (name + "/epochs.csv"))});
  }
  Result done(const Arguments& arguments) {
    Result result = qtrain(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    return result;
  }

  Folder folder_;
  std::string data_ = write_tensor_data(folder_ / "data.safetensors", 50);
};

TEST_F(Shard, EveryProcessTrainsOnItsOwnPart) {
  const Result first = done(of("0"));
  EXPECT_NE(first.out.find("part 1 of 3"), std::string::npos) << first.out;
  done(of("2"));
  EXPECT_EQ(timeless_rows(folder_ / "rank0/steps.csv").size(), 1U + 2 * 2)
      << "two full batches of 8 an epoch";
  EXPECT_EQ(timeless_rows(folder_ / "rank2/steps.csv").size(), 1U + 2 * 2);
  EXPECT_NE(rows("rank0"), rows("rank2"));
  // Own parts of the validation data, none of whose images counts as a replacement.
  for (const char* name : {"rank0", "rank2"}) {
    const std::vector<std::string> epochs = timeless_rows(folder_ / (std::string(name) + "/epochs.csv"));
    ASSERT_EQ(epochs.size(), 3U);
    std::string cells = epochs.back();
    for (char& c : cells)
      if (c == ',') c = '\n';
    EXPECT_GT(std::stod(lines_of(cells)[4]), 0) << "val_loss";
  }
}

TEST_F(Shard, ResumesInItsPart) {
  done(of("1"));
  const std::vector<std::string> straight = rows("rank1");
  const std::string stopped = folder_ / "stopped";
  done(of("1", {"--output", stopped, "--max-steps", "1"}));
  done({"--resume", stopped, "--max-steps", "3"});
  done({"--resume", stopped, "--max-steps", "0"});
  EXPECT_EQ(rows("stopped"), straight);
  const Result other = qtrain({"--resume", stopped, "--rank", "2"});
  EXPECT_EQ(other.status, 2);
  EXPECT_NE(other.err.find("--rank] can't change in a resumed run"), std::string::npos) << other.err;
}

TEST_F(Shard, EvalTakesAllOfTheData) {
  done(of("0"));
  const Result result = done({"eval", "--json", "--checkpoint", folder_ / "rank0"});
  EXPECT_NE(result.out.find("\"images\": 16"), std::string::npos) << result.out;
}

TEST_F(Shard, MistakesEndInOneLineAndStatus2) {
  for (const Arguments& more :
       {Arguments{"--rank", "3"}, Arguments{"--rank", "-1"}, Arguments{"--world-size", "0"},
        Arguments{"--world-size", "7"}, Arguments{"--world-size", "1000"}}) {
    const Result result = qtrain(of("0", more));
    EXPECT_EQ(result.status, 2) << more[1];
    EXPECT_TRUE(result.err.starts_with("error: ")) << result.err;
    EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  }
}

}  // namespace
}  // namespace qtrain::runs
