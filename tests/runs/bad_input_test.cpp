// Mistakes of the user, and what disks and files may do: each ends in one line that begins with "error:",
// exit status 2, and nothing that was there before is touched.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/codec/decode.h"
#include "engine/core/rng.h"
#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A JPEG file of 48x48 pixels, as text.
std::string jpeg(std::uint64_t seed) {
  data::Image image{48, 48, {}};
  RandomStream random(seed, RandomPurpose::generate);
  for (int i = 0; i < 48 * 48 * 3; ++i) image.rgb.push_back(static_cast<std::uint8_t>(random.below(256)));
  const std::vector<std::byte> bytes = data::encode_jpeg(image, 80);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// An ImageFolder with `classes` classes of `images` images in both splits.
std::string write_folder(const std::string& root, int classes, int images) {
  for (const std::string split : {"train", "val"})
    for (int c = 0; c < classes; ++c)
      for (int i = 0; i < images; ++i)
        write_text(fs::path(root) / split / ("class" + std::to_string(c)) / (std::to_string(i) + ".jpg"),
                   jpeg(100 * static_cast<std::uint64_t>(c) + static_cast<std::uint64_t>(i)));
  return root;
}

std::string safetensors(const std::string& header, std::size_t data) {
  std::string text(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(text.data(), &length, sizeof length);
  return text + header + std::string(data, '\x5a');
}

class BadInput : public ::testing::Test {
 protected:
  // The command fails as it should, saying all of `parts`; the output folder isn't made.
  void expect_error(const Arguments& arguments, const std::vector<std::string>& parts) {
    const Result result = qtrain(arguments);
    std::string command;
    for (const std::string& a : arguments) command += a + " ";
    EXPECT_EQ(result.status, 2) << command << "\n" << result.err;
    EXPECT_TRUE(result.err.starts_with("error: ")) << command << "\n" << result.err;
    EXPECT_EQ(lines_of(result.err).size(), 1U) << command << "\n" << result.err;
    for (const std::string& part : parts) EXPECT_TRUE(has(result.err, part)) << part << "\n" << result.err;
    EXPECT_FALSE(fs::exists(output_)) << command;
  }
  void expect_run_error(const Arguments& more, const std::vector<std::string>& parts) {
    expect_error(join({quick_run(data_, output_), more}), parts);
  }

  Folder folder_;
  std::string output_ = folder_ / "out";
  std::string data_ = write_tensor_data(folder_ / "data.safetensors");
};

TEST_F(BadInput, UnknownNamesSuggestTheNearest) {
  expect_run_error({"--model", "resnet19"}, {"unknown model", "resnet18"});
  expect_run_error({"--quant", "sta"}, {"unknown quantizer", "'sat'"});
  expect_run_error({"--quant", "sat", "--set", "shceme=original"}, {"--set", "'shceme'", "'scheme'"});
  expect_run_error({"--quant", "sat", "--set", "weight.alpha=1"}, {"'weight.alpha'", "activation.alpha"});
  expect_run_error({"--quant", "sat", "--set", "scheme=orignal"}, {"original"});
  expect_run_error({"--quantt", "sat"}, {"--quantt", "--quant"});
  expect_run_error({"--init-scale", "fc.wieght=2"}, {"'fc.wieght'", "'fc.weight'"});
  expect_run_error({"--precision", "tf32", "--device", "cpu"}, {"--precision", "tf32", "GPU"});
  expect_run_error({"--precision", "fp16"}, {"fp16", "bf16"});
  expect_run_error({"--first-layer", "flaot"}, {"float"});
  expect_run_error({"--plugin", folder_ / "none.so"}, {"none.so"});
  expect_run_error({"--data", "cifra10:x"}, {"cifar10"});
  expect_error({"trian"}, {"'trian'", "'train'"});
}

TEST_F(BadInput, NumbersOutOfRange) {
  for (const char* bits : {"0", "-1", "33", "two", "4.5", ""})
    expect_run_error({"--quant", "sat", "--bits", bits}, {"--bits"});
  expect_run_error({"--lr", "nan"}, {"--lr"});
  expect_run_error({"--epochs", "-3"}, {"--epochs"});
  expect_run_error({"--batch-size", "1000"}, {"batch size", "1000"});
  expect_run_error({"--num-classes", "3"}, {"--num-classes", "at least 4"});
  expect_run_error({"--image-size", "20"}, {"16"});
  expect_run_error({"--device", "cuda"}, {"--device", "cuda"});
  expect_run_error({"--warmup-epochs", "11"}, {"--warmup-epochs"});
}

TEST_F(BadInput, AugmentationThatHasNothingToActOn) {
  for (const Arguments& flag : std::initializer_list<Arguments>{{"--color-jitter", "0.4,0.4,0.4,0"},
                                                                {"--rand-augment", "2,9"},
                                                                {"--lighting", "0.1"},
                                                                {"--random-erasing", "0.25"}})
    expect_run_error(flag, {"[" + flag[0] + "] acts on images that --augment imagenet, cifar, resize makes",
                            "got --augment none"});
  expect_run_error(join({{"--vflip", "0.5"}, {"--augment", "resize"}}),
                   {"[--vflip]", "got --augment resize"});
  expect_run_error(join({{"--crop-padding", "2"}, {"--augment", "imagenet"}}), {"[--crop-padding]", "cifar"});
  expect_run_error(join({{"--rrc-ratio", "1,1"}, {"--augment", "cifar"}}), {"[--rrc-ratio]", "imagenet"});
  expect_run_error(join({{"--random-erasing", "1", "--random-erasing-mode", "pixel"},
                         {"--augment", "cifar", "--normalize", "raw"}}),
                   {"[--random-erasing-mode]", "deviation"});

  const std::string path = folder_ / "floats.safetensors";
  TensorMap floats;
  floats["images"] = Tensor::full({16, 3, 8, 8}, 0.5F);
  floats["labels"] = Tensor::from_values<std::int64_t>({16}, std::vector<std::int64_t>(16, 1));
  save_tensors(path, floats);
  const Arguments run = quick_run("tensors:" + path, output_);
  expect_error(join({run, {"--mixup", "0.2"}}), {"[--mixup] mixes 8-bit images", "got float images"});
  expect_error(join({run, {"--lighting", "0.1"}}),
               {"[--lighting]", "with float images", "expected 8-bit images"});
}

TEST_F(BadInput, DataThatIsNotThereOrEmpty) {
  const auto with_data = [&](const std::string& data, const std::vector<std::string>& parts) {
    expect_error(quick_run(data, output_), parts);
  };
  with_data(folder_ / "nowhere", {"nowhere"});
  fs::create_directories(folder_ / "empty");
  with_data(folder_ / "empty", {"empty", "train"});
  fs::create_directories(folder_ / "hollow/train/a");
  fs::create_directories(folder_ / "hollow/train/b");
  fs::create_directories(folder_ / "hollow/val/a");
  fs::create_directories(folder_ / "hollow/val/b");
  with_data(folder_ / "hollow", {"hollow"});
  with_data(write_folder(folder_ / "one", 1, 8), {"class"});
  with_data("tensors:" + folder_ / "none.safetensors", {"none.safetensors"});
  with_data("tensors:", {"tensors"});
  with_data("cifar10:" + folder_ / "empty", {"data_batch"});
  with_data("pack:" + folder_ / "empty", {"empty", "a folder"});
  with_data("pack:" + folder_ / "none.pack", {"none.pack", "can't open"});
  with_data("tar:" + folder_ / "empty", {"empty", "no train shards"});
  with_data("tar:" + folder_ / "{train,val}.tar", {"train.tar", "can't open"});
  with_data("tra:" + folder_ / "empty", {"'tra'", "did you mean 'tar'?"});
  write_text(folder_ / "shards/train/0.tar", std::string(3000, 'x'));
  write_text(folder_ / "shards/val/0.tar", std::string(3000, 'x'));
  with_data(folder_ / "shards", {"0.tar, offset 0", "wrong checksum"});
}

TEST_F(BadInput, AnUnreadableImageIsNamedOrSkippedAndCounted) {
  const std::string root = write_folder(folder_ / "images", 2, 8);
  const Arguments run{"--model", "resnet20", "--data", root,   "--image-size", "32",       "--batch-size",
                      "8",       "--epochs", "1",      "--lr", "0.01",         "--output", output_};
  const std::string bad = root + "/train/class1/3.jpg";
  const std::string whole = read_text(bad);
  std::vector<std::string> contents{"", "this is text\n"};
  for (const std::size_t percent : {10U, 50U, 99U})
    contents.push_back(whole.substr(0, whole.size() * percent / 100));
  for (const std::string& content : contents) {
    write_text(bad, content);
    const Result result = qtrain(run);
    EXPECT_EQ(result.status, 2) << content.size();
    EXPECT_TRUE(result.err.starts_with("error: ") && has(result.err, "class1/3.jpg")) << result.err;
    EXPECT_EQ(lines_of(result.err).size(), 1U);
    fs::remove_all(output_);
  }
  const Result skipped = qtrain(join({run, {"--bad-images", "skip"}}));
  EXPECT_EQ(skipped.status, 0) << skipped.err;
  EXPECT_TRUE(has(skipped.out, "bad images  1 skipped") && has(skipped.out, "class1/3.jpg")) << skipped.out;
}

TEST_F(BadInput, EvalLeavesUnreadableImagesOut) {
  const std::string root = write_folder(folder_ / "images", 2, 8);
  const Arguments run{"--model", "resnet20", "--data", root,   "--image-size", "32",       "--batch-size",
                      "8",       "--epochs", "1",      "--lr", "0.01",         "--output", folder_ / "run"};
  ASSERT_EQ(qtrain(run).status, 0);
  write_text(root + "/val/class0/2.jpg", "no image");
  const Arguments eval{"eval", "--json", "--batch-size", "4", "--checkpoint", folder_ / "run"};
  expect_error(eval, {"class0/2.jpg"});
  const Result result = qtrain(join({eval, {"--bad-images", "skip"}}));
  ASSERT_EQ(result.status, 0) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["images"], 15);
  EXPECT_EQ(json["skipped"], 1);
}

TEST_F(BadInput, SafetensorsFilesThatBreakTheRules) {
  const std::string good = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  std::string huge = safetensors(good, 8);
  huge[7] = '\x7f';
  const std::vector<std::string> files = {
      "",
      "1234567",
      huge,
      safetensors(good, 8).substr(0, 30),
      safetensors("{\"\xFF\":1}", 0),
      safetensors("{nonsense}", 0),
      safetensors("[1]", 0),
      safetensors(R"({"__metadata__":{"a":1}})", 0),
      safetensors(one("F99", "[2]", "[0,8]"), 8),
      safetensors(
          R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2),
      safetensors(one("F32", "[2]", "[8,0]"), 8),
      safetensors(one("F32", "[2]", "[1,9]"), 9),
      safetensors(
          R"({"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          3),
      safetensors(one("F32", "[4294967296,4294967296,4]", "[0,8]"), 8),
      safetensors(one("F32", "[3]", "[0,8]"), 8),
      safetensors(one("F4", "[3]", "[0,2]"), 2),
      safetensors(good, 9),
      safetensors(good, 7),
      safetensors(one("F32", "[-2]", "[0,8]"), 8),
      safetensors(one("F32", "[2.0]", "[0,8]"), 8),
  };
  const std::string path = folder_ / "bad.safetensors";
  for (const std::string& content : files) {
    write_text(path, content);
    expect_run_error({"--init", path}, {"bad.safetensors"});
    expect_error(quick_run("tensors:" + path, output_), {"bad.safetensors"});
    expect_error({"--resume", path}, {"bad.safetensors"});
    expect_error({"eval", "--checkpoint", path}, {"bad.safetensors"});
    EXPECT_EQ(read_text(path), content) << "untouched";
  }
  write_text(path, safetensors(good, 8));
  expect_run_error({"--init", path}, {"no tensor of the file belongs"});
  expect_error(quick_run("tensors:" + path, output_), {"images"});
  expect_error({"--resume", path}, {"not a checkpoint", "--init"});
}

TEST_F(BadInput, CheckpointsOfAnotherModel) {
  ASSERT_EQ(qtrain(join({quick_run(data_, folder_ / "r20"), {"--epochs", "0"}})).status, 0);
  const std::string checkpoint = folder_ / "r20/last.safetensors";
  expect_error({"--resume", folder_ / "r20", "--model", "resnet32"}, {"--model", "resnet32", "resnet20"});
  expect_run_error({"--init", checkpoint, "--num-classes", "9"}, {"fc.weight"});
  expect_error(join({quick_run(data_, output_), {"--init", checkpoint, "--model", "resnet18"}}),
               {"conv1.weight"});
  expect_error({"--resume", folder_ / "nothing"}, {"nothing", "no such file or folder"});
  expect_error({"eval", "--checkpoint", folder_ / "nothing"}, {"nothing"});
}

TEST_F(BadInput, AnOutputFolderThatCannotBeWritten) {
  write_text(folder_ / "file", "mine");
  const auto into = [&](const std::string& output, const std::vector<std::string>& parts) {
    expect_error(quick_run(data_, output), parts);
  };
  into(folder_ / "file", {"file"});
  into(folder_ / "file/below", {"file/below", "output folder"});
  into("/proc/qtrain-run", {"/proc/qtrain-run"});
  EXPECT_EQ(read_text(folder_ / "file"), "mine");
  write_text(folder_ / "full/notes.txt", "mine");
  into(folder_ / "full", {"not empty", "--resume"});
  EXPECT_EQ(read_text(folder_ / "full/notes.txt"), "mine");
}

TEST_F(BadInput, AFullDiskLosesNothing) {
  const Arguments run = join({quick_run(data_, folder_ / "run"), {"--epochs", "2"}});
  ASSERT_EQ(qtrain(run).status, 0);
  const std::string before = read_text(folder_ / "run/last.safetensors");
  ASSERT_GT(before.size(), 1'000'000U);
  const Result result = qtrain({"--resume", folder_ / "run", "--epochs", "3"}, before.size() / 2);
  EXPECT_EQ(result.status, 2) << result.out;
  EXPECT_TRUE(result.err.starts_with("error: ")) << result.err;
  EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  EXPECT_TRUE(read_text(folder_ / "run/last.safetensors") == before);
  const Result later = qtrain({"--resume", folder_ / "run", "--epochs", "3"});
  EXPECT_EQ(later.status, 0) << later.err;
  EXPECT_EQ(timeless_rows(folder_ / "run/steps.csv").size(), 1 + 18U);
}

TEST_F(BadInput, ALossThatIsNotFiniteNamesTheFirstOperation) {
  const Arguments run =
      join({quick_run(data_, folder_ / "run"), {"--epochs", "9", "--checkpoint-every", "1"}});
  Arguments diverging = run;
  diverging[7] = "1e30";
  ASSERT_EQ(diverging[6], "--lr");
  const Result result = qtrain(diverging);
  EXPECT_EQ(result.status, 2);
  EXPECT_TRUE(result.err.starts_with("error: [step ")) << result.err;
  EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  for (const char* part : {"the loss is", "first to go wrong: [", "last.safetensors"})
    EXPECT_TRUE(has(result.err, part)) << part << "\n" << result.err;
  EXPECT_EQ(qtrain({"eval", "--checkpoint", folder_ / "run/last.safetensors"}).status, 0)
      << "the file is whole";
}

}  // namespace
}  // namespace qtrain::runs
