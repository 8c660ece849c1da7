#include "cli/metrics.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/core/error.h"
#include "tests/cli/temporary_folder.h"

namespace qtrain::cli {
namespace {

const std::string step_header = "epoch,step,loss,top1,lr,images_per_second,data_wait_share\n";

StepRow row(std::int64_t step, float loss = 1.5F) {
  return {.epoch = 1,
          .step = step,
          .loss = loss,
          .top1 = 0.25,
          .lr = 0.05,
          .images_per_second = 231.04,
          .data_wait_share = 0.01};
}

TEST(Metrics, RowsOfStepsAndEpochs) {
  const TemporaryFolder folder;
  Metrics metrics(folder.path(), 2);
  for (int step = 1; step <= 4; ++step) metrics.step(row(step));
  metrics.epoch({.epoch = 1,
                 .step = 4,
                 .train_loss = 0.1,
                 .train_top1 = 0.5,
                 .lr = 0.05,
                 .images_per_second = 10,
                 .data_wait_share = 0,
                 .train_seconds = 1.5});
  metrics.epoch({.epoch = 2,
                 .step = 8,
                 .train_loss = 0.1,
                 .train_top1 = 0.5,
                 .validation = Validation{.loss = 1.0 / 3, .top1 = 0.75, .top5 = 1},
                 .lr = 0.05,
                 .images_per_second = 10,
                 .data_wait_share = 0,
                 .train_seconds = 1.5,
                 .validation_seconds = 0.25});
  metrics.sync();
  EXPECT_EQ(read_file(folder.file("steps.csv")),
            step_header + "1,2,1.5,0.25,0.05,231.0,0.0100\n1,4,1.5,0.25,0.05,231.0,0.0100\n");
  EXPECT_EQ(
      read_file(folder.file("epochs.csv")),
      "epoch,step,train_loss,train_top1,val_loss,val_top1,val_top5,lr,images_per_second,data_wait_share,"
      "train_seconds,val_seconds\n"
      "1,4,0.1,0.5,,,,0.05,10.0,0.0000,1.50,0.00\n"
      "2,8,0.1,0.5,0.3333333333333333,0.75,1,0.05,10.0,0.0000,1.50,0.25\n");
}

TEST(Metrics, LossesReadBackBitForBit) {
  const TemporaryFolder folder;
  const std::vector<float> losses = {
      0.1F, 1.0F / 3, 2.3025851F, 1e-30F, 1e30F, 16777217.0F, std::numeric_limits<float>::denorm_min()};
  Metrics metrics(folder.path(), 1);
  for (std::size_t i = 0; i < losses.size(); ++i)
    metrics.step(row(static_cast<std::int64_t>(i) + 1, losses[i]));
  std::istringstream file(read_file(folder.file("steps.csv")));
  std::string line;
  std::getline(file, line);
  for (const float loss : losses) {
    std::getline(file, line);
    const std::size_t begin = line.find(',', line.find(',') + 1) + 1;
    EXPECT_EQ(std::strtof(line.c_str() + begin, nullptr), loss) << line;
  }
}

TEST(Metrics, ResumingGivesTheFileOfAnUninterruptedRun) {
  const TemporaryFolder straight;
  const TemporaryFolder resumed;
  {
    Metrics metrics(straight.path(), 1);
    for (int step = 1; step <= 6; ++step) metrics.step(row(step));
    metrics.epoch({.epoch = 1, .step = 3});
    metrics.epoch({.epoch = 2, .step = 6});
  }
  {
    Metrics metrics(resumed.path(), 1);
    for (int step = 1; step <= 5; ++step) metrics.step(row(step, step > 3 ? 9.0F : 1.5F));
    metrics.epoch({.epoch = 1, .step = 3});
    metrics.epoch({.epoch = 2, .step = 6, .train_loss = 9});
  }
  {
    std::ofstream torn(resumed.file("steps.csv"), std::ios::app);
    torn << "1,2";  // killed within a row that would pass as an early one
  }
  {
    Metrics metrics(resumed.path(), 1, 3, 1);
    for (int step = 4; step <= 6; ++step) metrics.step(row(step));
    metrics.epoch({.epoch = 2, .step = 6});
  }
  for (const char* name : {"steps.csv", "epochs.csv"})
    EXPECT_EQ(read_file(resumed.file(name)), read_file(straight.file(name)));
  EXPECT_FALSE(std::filesystem::exists(resumed.file("steps.csv.new")));
}

TEST(Metrics, ANewRunStartsNewFilesAndAResumedOneDoesWithoutOld) {
  const TemporaryFolder folder;
  write_file(folder.file("steps.csv"), "old\n");
  { Metrics metrics(folder.path(), 1); }
  EXPECT_EQ(read_file(folder.file("steps.csv")), step_header);
  std::filesystem::remove(folder.file("steps.csv"));
  { Metrics metrics(folder.path(), 0, 5); }
  EXPECT_EQ(read_file(folder.file("steps.csv")), step_header);
}

TEST(Metrics, NoRowsWhenSwitchedOff) {
  const TemporaryFolder folder;
  Metrics metrics(folder.path(), 0);
  metrics.step(row(1));
  EXPECT_EQ(read_file(folder.file("steps.csv")), step_header);
}

TEST(Metrics, BrokenInput) {
  const TemporaryFolder folder;
  write_file(folder.file("steps.csv"), "epoch,step,loss\n1,1,2\n");
  EXPECT_THROW(Metrics(folder.path(), 1, 5), FormatError);
  EXPECT_EQ(read_file(folder.file("steps.csv")), "epoch,step,loss\n1,1,2\n");
  EXPECT_THROW(Metrics(folder.file("missing"), 1), IoError);
  write_file(folder.file("steps.csv"), step_header + "1,x,1,1,1,1,1\nnonsense\n\n" + "1,2,1,1,1,1,1\n");
  { Metrics metrics(folder.path(), 1, 5); }
  EXPECT_EQ(read_file(folder.file("steps.csv")), step_header + "1,2,1,1,1,1,1\n");
}

TEST(AppendFile, AFullDiskIsAnError) {
  AppendFile full("/dev/full");
  try {
    full.append("x");
    FAIL() << "/dev/full took a byte";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace qtrain::cli
