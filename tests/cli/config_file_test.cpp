#include "cli/config_file.h"

#include <gtest/gtest.h>

#include "cli/dispatch.h"
#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "tests/cli/temporary_folder.h"

namespace qtrain::cli {
namespace {

class ConfigFile : public testing::Test {
 protected:
  TrainOptions read(const std::string& toml) {
    write_file(path_, toml);
    return train_options({"--config", path_});
  }

  template <class ErrorType>
  std::string error_of(const std::string& toml) {
    try {
      read(toml);
    } catch (const ErrorType& error) {
      return error.what();
    }
    return "accepted";
  }

  // The error of that type names the line and contains the text.
  template <class ErrorType>
  void expect_error(const std::string& toml, int line, const std::string& part) {
    const std::string error = error_of<ErrorType>(toml);
    EXPECT_EQ(error.find("[" + path_ + ":" + std::to_string(line) + "] "), 0U) << error;
    EXPECT_NE(error.find(part), std::string::npos) << error;
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.file("run.toml");
};

TEST_F(ConfigFile, FlagsOverrideTheFile) {
  write_file(path_, "lr = 0.5\nbits = 2\nepochs = 7\n[set]\na = 1\nb = 2\n");
  const TrainOptions o = train_options({"--lr", "0.25", "--set", "b=3", "--config", path_});
  EXPECT_EQ(o.lr, 0.25);
  EXPECT_EQ(o.bits, 2);
  EXPECT_EQ(o.epochs, 7);
  EXPECT_EQ(o.set, (std::vector<Assignment>{{"a", "1"}, {"b", "3"}}));
}

TEST_F(ConfigFile, EveryTypeOfValue) {
  const TrainOptions o = read(
      "quant = 'sat'\nw-bits = 3\na-bits = 'auto'\nlr = 1\nnesterov = true\nshuffle = 'off'\nwd = 1e-3\n"
      "schedule = 'multistep'\nmilestones = [2, 4]\nbetas = [0, 0.5]\nplugin = ['a.so', 'b,c.so']\n"
      "[set]\nclamp = false\nweight.scheme = 'centered'\n[set.activation]\nstart = "
      "1.5\n[init-scale]\nfc.weight = 16\n");
  EXPECT_EQ(o.quant, "sat");
  EXPECT_EQ(o.w_bits, 3);
  EXPECT_EQ(o.a_bits, std::nullopt);
  EXPECT_EQ(o.lr, 1.0);
  EXPECT_TRUE(o.nesterov);
  EXPECT_FALSE(o.shuffle);
  EXPECT_EQ(o.weight_decay, 1e-3);
  EXPECT_EQ(o.milestones, (std::vector<std::int64_t>{2, 4}));
  EXPECT_EQ(o.betas, (std::vector<double>{0, 0.5}));
  EXPECT_EQ(o.plugin, (std::vector<std::string>{"a.so", "b,c.so"}));
  EXPECT_EQ(o.set, (std::vector<Assignment>{
                       {"activation.start", "1.5"}, {"clamp", "false"}, {"weight.scheme", "centered"}}));
  EXPECT_EQ(o.init_scale, (std::vector<Assignment>{{"fc.weight", "16"}}));
}

TEST_F(ConfigFile, AQuantizerMayHaveATableOfItsOwn) {
  const TrainOptions o = read(
      "epochs = 2\n[quant]\nname = 'pact'\nbits = 3\n[quant.weight]\nadaptive = 'var-mean'\n"
      "[quant.activation]\nboundary = 4\n");
  EXPECT_EQ(o.quant, "pact");
  EXPECT_EQ(o.bits, 3);
  EXPECT_EQ(o.set, (std::vector<Assignment>{{"activation.boundary", "4"}, {"weight.adaptive", "var-mean"}}));
  expect_error<FormatError>("[quant]\nbitss = 3\n", 2, "did you mean 'bits'?");
  expect_error<FormatError>("[quant]\nname = 3\n", 2, "expected a string");
  expect_error<FormatError>("[quant.weight]\nscheme = [1]\n", 2, "wrong type");
}

TEST_F(ConfigFile, WhatIsWrittenReadsBackTheSame) {
  const TrainOptions plain;
  const TrainOptions rich = train_options({"--model",
                                           "a \"b\" \\c\n\t\x7f",
                                           "--num-classes",
                                           "10",
                                           "--relu",
                                           "off",
                                           "--init-scale",
                                           "fc.weight=16",
                                           "layer1.0.w=0.1",
                                           "--quant",
                                           "sat",
                                           "--w-bits",
                                           "2",
                                           "--set",
                                           "weight.scheme=centered",
                                           "a.b=x=y",
                                           "a=1",
                                           "q\"k=",
                                           "--lr",
                                           "0.1000000000000000055",
                                           "--eps",
                                           "1e-20",
                                           "--weight-decay",
                                           "3",
                                           "--seed",
                                           "9223372036854775807",
                                           "--shuffle",
                                           "off",
                                           "--plugin",
                                           "x,y.so",
                                           "--plugin",
                                           "z.so",
                                           "--schedule",
                                           "multistep",
                                           "--milestones",
                                           "3,6",
                                           "--mean",
                                           "0.1,0.2,0.3",
                                           "--std",
                                           "1,2,1e-3",
                                           "--output",
                                           "r\xc3\xa9sultat"});
  for (const TrainOptions& options : {plain, rich}) {
    TrainOptions copy = options;
    const std::string text = config_text(train_fields(copy));
    EXPECT_EQ(
        [&] {
          TrainOptions read_back = read(text);
          read_back.config.clear();
          return read_back;
        }(),
        options)
        << text;
    TrainOptions again = read(text);
    EXPECT_EQ(config_text(train_fields(again)), text);
  }
}

TEST_F(ConfigFile, UnknownKeysNameLineAndNearest) {
  expect_error<FormatError>("lr = 0.1\n\nbatchsize = 3\n", 3, "did you mean 'batch-size'?");
  expect_error<FormatError>("[optimiser]\nlr = 1\n", 1, "unknown key 'optimiser'");
  expect_error<FormatError>("config = 'other.toml'\n", 1, "unknown key 'config'");
}

TEST_F(ConfigFile, WrongTypesNameLineAndType) {
  expect_error<FormatError>("\nlr = 'fast'\n", 2, "got a string; expected a number");
  expect_error<FormatError>("epochs = 1.5\n", 1, "got a number; expected an integer");
  expect_error<FormatError>("w-bits = 'two'\n", 1, "expected an integer or \"auto\"");
  expect_error<FormatError>("model = 18\n", 1, "expected a string");
  expect_error<FormatError>("nesterov = 1\n", 1, "expected true or false");
  expect_error<FormatError>("milestones = 30\n", 1, "expected an array of integers");
  expect_error<FormatError>("milestones = [\n 30,\n 'x']\n", 3, "expected an array of integers");
  expect_error<FormatError>("set = 'a=1'\n", 1, "expected a table");
  expect_error<FormatError>("[set]\na = [1]\n", 2, "got an array");
  expect_error<FormatError>("seed = 2026-01-01\n", 1, "got a date or time");
  expect_error<FormatError>("lr = { a = 1 }\n", 1, "got a table");
}

TEST_F(ConfigFile, ValuesOutOfRangeNameTheLine) {
  expect_error<ValueError>("lr = 0.1\nbits = 33\n", 2, "bits is out of range; got 33; expected 1..32");
  expect_error<ValueError>("lr = nan\n", 1, "out of range");
  expect_error<ValueError>("optimizer = 'sdg'\n", 1, "did you mean 'sgd'?");
}

TEST_F(ConfigFile, BrokenFiles) {
  expect_error<FormatError>("lr = 0.1\nbits = = 3\n", 2, "broken TOML");
  expect_error<FormatError>("lr = 0.1\nlr = 0.2\n", 2, "broken TOML");
  EXPECT_THROW(read(std::string("lr = 1\0\xff\xfe", 9)), FormatError);
  EXPECT_THROW(train_options({"--config", folder_.file("missing.toml")}), IoError);
  EXPECT_THROW(train_options({"--config", folder_.path()}), IoError);
}

TEST_F(ConfigFile, DamagedFilesAreReadOrRefused) {
  TrainOptions options;
  const std::string whole = config_text(train_fields(options)) + "[set]\nweight.scheme = \"a\"\n";
  RandomStream random(1, RandomPurpose::user);
  int refused = 0;
  for (int round = 0; round < 500; ++round) {
    std::string text = whole;
    for (int edits = 0; edits < 3; ++edits)
      text[random.below(text.size())] = static_cast<char>(random.below(256));
    if (round % 2 == 0) text.resize(random.below(text.size()));
    try {
      read(text);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace qtrain::cli
