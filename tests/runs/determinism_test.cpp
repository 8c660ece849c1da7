// The same seed gives the same run, bit for bit, however many threads read the data.
#include <gtest/gtest.h>

#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

class Determinism : public ::testing::Test {
 protected:
  // The rows of both CSV files, without timing.
  std::vector<std::string> rows_of(const std::string& name, const Arguments& more) {
    const Result result = qtrain(join({quick_run(data_, folder_ / name), {"--epochs", "2"}, more}));
    EXPECT_EQ(result.status, 0) << result.err;
    return join(
        {timeless_rows(folder_ / (name + "/steps.csv")), timeless_rows(folder_ / (name + "/epochs.csv"))});
  }

  Folder folder_;
  std::string data_ = write_tensor_data(folder_ / "data.safetensors");
};

TEST_F(Determinism, MetricsDoNotDependOnTheNumberOfWorkers) {
  const Arguments augmented{"--augment", "cifar", "--quant", "sat", "--bits", "3", "--seed", "7"};
  const auto rows = rows_of("a", join({augmented, {"--workers", "1"}}));
  ASSERT_EQ(rows.size(), 1 + 12 + 1 + 2U);
  EXPECT_EQ(rows_of("b", join({augmented, {"--workers", "2"}})), rows);
  EXPECT_EQ(rows_of("c", join({augmented, {"--workers", "0"}})), rows);
  EXPECT_EQ(rows_of("d", join({augmented, {"--workers", "1"}})), rows) << "a second run with the same flags";
}

TEST_F(Determinism, TheSeedChangesWeightsAndOrder) {
  EXPECT_NE(rows_of("a", {"--seed", "1"}), rows_of("b", {"--seed", "2"}));
}

TEST_F(Determinism, TwoComputeThreadsRepeatThemselvesToo) {
  EXPECT_EQ(rows_of("a", {"--threads", "2"}), rows_of("b", {"--threads", "2"}));
}

TEST_F(Determinism, RowsDoNotDependOnWhichRowsAreWritten) {
  const auto all = rows_of("a", {});
  const auto every_third = rows_of("b", {"--metrics-every", "3"});
  EXPECT_EQ(every_third[1], all[3]);
  EXPECT_EQ(every_third[4], all[12]);
  EXPECT_EQ(every_third.back(), all.back()) << "the epoch's sums";
}

}  // namespace
}  // namespace qtrain::runs
