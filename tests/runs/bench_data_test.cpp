// qtrain bench-data, as typed.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/codec/decode.h"
#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class BenchData : public ::testing::Test {
 protected:
  BenchData() {
    data::Image image{40, 30, {}};
    image.rgb.assign(std::size_t{40} * 30 * 3, 99);
    const std::vector<std::byte> bytes = data::encode_jpeg(image, 80);
    file_bytes_ = static_cast<double>(bytes.size());
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (const char* name :
         {"train/a/1", "train/a/2", "train/b/1", "train/b/2", "train/b/3", "val/a/1", "val/b/1"})
      write_text(fs::path(root_) / name, text);
  }
  json measured(const Arguments& more) {
    const Result result =
        qtrain(join({{"bench-data", "--json", "--seconds", "0.4", "--images", "40"}, more}));
    EXPECT_EQ(result.status, 0) << result.err;
    return result.status == 0 ? json::parse(result.out) : json();
  }

  Folder folder_;
  std::string root_ = folder_ / "images";
  double file_bytes_ = 0;
};

TEST_F(BenchData, MeasuresEveryStepAndSaysWhatLimits) {
  const json all = measured({"--data", root_, "--image-size", "16", "--batch-size", "2"});
  EXPECT_EQ(all["images"], 5);
  EXPECT_EQ(all["split"], "train");
  EXPECT_EQ(all["mean_bytes"], file_bytes_);
  EXPECT_EQ(all["image_size"], 16);
  EXPECT_EQ(all["disk"]["threads"], 6);
  EXPECT_EQ(all["decode_one"]["threads"], 1);
  EXPECT_EQ(all["decode"]["threads"], 2);
  EXPECT_EQ(all["loader"]["threads"], 2);
  for (const char* step : {"disk", "decode_one", "decode", "loader"}) {
    EXPECT_GE(all[step]["images"], 1) << step;
    EXPECT_LE(all[step]["images"], 40) << step;
    const double rate = all[step]["images_per_second"];
    EXPECT_GT(rate, 0) << step;
    EXPECT_DOUBLE_EQ(all[step]["megabytes_per_second"], rate * file_bytes_ / 1e6) << step;
  }
  EXPECT_FALSE(all["limit"].get<std::string>().empty());

  const json val = measured({"--data", root_, "--split", "val", "-j", "1", "--readers", "0"});
  EXPECT_EQ(val["images"], 2);
  EXPECT_EQ(val["image_size"], 224);
  EXPECT_EQ(val["disk"]["threads"], 1);
  EXPECT_EQ(val["decode"], val["decode_one"]);
  EXPECT_TRUE(measured({"--data", root_, "-j", "0"})["limit"].get<std::string>().find("--workers") !=
              std::string::npos);
}

TEST_F(BenchData, TakesSetsInMemoryAndPrintsALineAStep) {
  const std::string tensors = write_tensor_data(folder_ / "data.safetensors");
  const json all = measured({"--data", tensors});
  EXPECT_EQ(all["images"], 48);
  EXPECT_EQ(all["mean_bytes"], 16 * 16 * 3);
  const Result result = qtrain({"bench-data", "--data", tensors, "--images", "20", "--seconds", "0.4"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const std::vector<std::string> lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 7U) << result.out;
  const std::vector<std::string> beginnings{tensors,   "disk ",   "decode ", "decode ",
                                            "loader ", "images ", "limit "};
  for (std::size_t i = 0; i < lines.size(); ++i) EXPECT_TRUE(lines[i].starts_with(beginnings[i])) << lines[i];
}

TEST_F(BenchData, MistakesEndInOneLineAndStatus2) {
  for (const Arguments& more :
       {Arguments{"--data", "/no/such/folder"}, Arguments{"--data", root_, "--split", "test"},
        Arguments{"--data", root_, "--workers", "-1"}, Arguments{"--data", root_, "--seconds", "soon"},
        Arguments{"--data", root_, "--augment", "cifar"}, Arguments{"--data", root_, "--batch-size", "0"}}) {
    const Result result = qtrain(join({{"bench-data"}, more}));
    EXPECT_EQ(result.status, 2) << more.back() << "\n" << result.err;
    EXPECT_TRUE(result.err.starts_with("error: ")) << result.err;
    EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  }
}

TEST_F(BenchData, AnUnreadableImageIsNamedOrSkipped) {
  write_text(root_ + "/train/a/1", "no image");
  const Arguments command{"bench-data", "--json", "--seconds", "0.4", "--images", "40", "--data", root_};
  const Result result = qtrain(command);
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("train/a/1] not an image"), std::string::npos) << result.err;
  EXPECT_EQ(qtrain(join({command, {"--bad-images", "skip"}})).status, 0);
}

}  // namespace
}  // namespace qtrain::runs
