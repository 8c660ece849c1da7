#include "cli/train_options.h"

#include <gtest/gtest.h>

#include <set>

#include "cli/dispatch.h"
#include "cli/help.h"
#include "cli/model_setup.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

std::string error_of(const std::vector<std::string>& arguments) {
  try {
    train_options(arguments);
  } catch (const ValueError& error) {
    return error.what();
  }
  return "accepted";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(TrainOptions, DefaultsNeedNoFlags) {
  EXPECT_EQ(train_options({}), TrainOptions{});
}

TEST(TrainOptions, FlagsAsPyTorchUsersTypeThem) {
  const TrainOptions o =
      train_options({"-b",        "32",  "--wd",    "5e-4",      "-j4",          "--lr=0.25", "--nesterov",
                     "--opt",     "sgd", "--sched", "multistep", "--milestones", "30",        "60,90",
                     "--shuffle", "off", "-o",      "runs/x",    "--smoothing",  "0.1"});
  EXPECT_EQ(o.batch_size, 32);
  EXPECT_EQ(o.weight_decay, 5e-4);
  EXPECT_EQ(o.workers, 4);
  EXPECT_EQ(o.lr, 0.25);
  EXPECT_TRUE(o.nesterov);
  EXPECT_EQ(o.milestones, (std::vector<std::int64_t>{30, 60, 90}));
  EXPECT_FALSE(o.shuffle);
  EXPECT_EQ(o.output, "runs/x");
  EXPECT_EQ(o.label_smoothing, 0.1);
}

TEST(TrainFlags, SwitchesHaveANegation) {
  const TrainOptions o = train_options({"--no-fuse", "--no-graph", "--nesterov", "--epochs", "3"});
  EXPECT_FALSE(o.fuse);
  EXPECT_FALSE(o.graph);
  EXPECT_TRUE(o.nesterov);
  EXPECT_EQ(o.epochs, 3);
  EXPECT_TRUE(has(error_of({"--no-epochs"}), "unknown flag --no-epochs"));
}

TEST(TrainOptions, BitsOfOneRoleOverrideTheCommonOnes) {
  const TrainOptions o = train_options({"--bits", "3", "--w-bits", "2"});
  EXPECT_EQ(o.weight_bits(), 2);
  EXPECT_EQ(o.activation_bits(), 3);
  EXPECT_EQ(train_options({"--w-bits", "auto"}).weight_bits(), 4);
}

// A quantizer that lacks a role leaves it float, but not where it was asked for by name.
TEST(TrainOptions, QuantizersServeTheRolesThatTheyHave) {
  TrainOptions options;
  options.quant = "ttq";
  EXPECT_EQ(wrap_options(options).weight_quantizer, "ttq");
  EXPECT_EQ(wrap_options(options).activation_quantizer, "none");
  options.a_quant = "sat";
  EXPECT_EQ(wrap_options(options).activation_quantizer, "sat");
  options.a_quant = "ttq";
  EXPECT_EQ(wrap_options(options).activation_quantizer, "ttq");
  options.quant = "ttk";
  options.a_quant.clear();
  EXPECT_THROW(wrap_options(options), ValueError);
}

TEST(TrainOptions, AssignmentsAddUpAndTheLastOfAKeyWins) {
  const TrainOptions o = train_options({"--set", "b=1", "weight.c=x=y", "--set", "a=2", "--set", "b=3"});
  EXPECT_EQ(o.set, (std::vector<Assignment>{{"a", "2"}, {"b", "3"}, {"weight.c", "x=y"}}));
}

TEST(TrainOptions, TheLastOfARepeatedFlagWins) {
  EXPECT_EQ(train_options({"--lr", "1", "--lr", "2"}).lr, 2);
}

TEST(TrainOptions, BitsOutOfRangeAreRefusedWithAHint) {
  for (const char* flag : {"--bits", "--w-bits", "--a-bits", "--first-w-bits", "--last-w-bits"})
    for (const char* bits : {"0", "-1", "33"}) {
      const std::string error = error_of({flag, bits});
      EXPECT_TRUE(has(error, flag) && has(error, std::string("got ") + bits) &&
                  has(error, "expected 1..32") && has(error, "--quant none"))
          << error;
    }
}

TEST(TrainOptions, NumbersOutOfRangeAreRefused) {
  const std::vector<std::vector<std::string>> cases = {{"--lr", "-0.1"},
                                                       {"--lr", "nan"},
                                                       {"--lr", "inf"},
                                                       {"--batch-size", "0"},
                                                       {"--epochs", "-1"},
                                                       {"--momentum", "1"},
                                                       {"--workers", "-1"},
                                                       {"--weight-decay", "-1e-4"},
                                                       {"--seed", "-1"},
                                                       {"--clip-grad", "-1"},
                                                       {"--eps", "0"},
                                                       {"--label-smoothing", "1"},
                                                       {"--gamma", "0"},
                                                       {"--flip", "1.1"},
                                                       {"--betas", "0.9", "1"},
                                                       {"--image-size", "0"},
                                                       {"--num-classes", "0"},
                                                       {"--rrc-scale", "0,1"},
                                                       {"--milestones", "0"},
                                                       {"--threads", "-1"},
                                                       {"--rrc-ratio", "0,1"},
                                                       {"--crop-ratio", "0"},
                                                       {"--crop-padding", "-1"},
                                                       {"--vflip", "2"},
                                                       {"--rand-augment", "-1,9"},
                                                       {"--color-jitter", "-1,0,0,0"},
                                                       {"--lighting", "-0.1"},
                                                       {"--random-erasing", "1.1"},
                                                       {"--mixup", "-1"},
                                                       {"--cutmix", "nan"},
                                                       {"--mix-prob", "1.1"},
                                                       {"--mix-switch-prob", "-1"}};
  for (const auto& arguments : cases) {
    const std::string error = error_of(arguments);
    EXPECT_TRUE(has(error, "[" + arguments[0] + "]") && has(error, "out of range") && has(error, "expected"))
        << error;
  }
}

TEST(TrainOptions, WhatIsNoNumberIsRefused) {
  EXPECT_TRUE(has(error_of({"--epochs", "1.5"}), "not a whole number"));
  EXPECT_TRUE(has(error_of({"--epochs", "99999999999999999999"}), "not a whole number"));
  EXPECT_TRUE(has(error_of({"--lr", "0.1x"}), "not a number"));
  EXPECT_TRUE(has(error_of({"--bits", "four"}), "got 'four'"));
  EXPECT_TRUE(has(error_of({"--milestones", "30,,60"}), "not a whole number"));
}

TEST(TrainOptions, UnknownFlagsAndChoicesNameTheNearest) {
  EXPECT_TRUE(has(error_of({"--epoch", "5"}), "did you mean --epochs?"));
  EXPECT_TRUE(has(error_of({"--batchsize=5"}), "did you mean --batch-size?"));
  EXPECT_TRUE(has(error_of({"--qqqqqqqqqqqqqq"}), "--help"));
  EXPECT_TRUE(has(error_of({"--optimizer", "sdg"}), "did you mean 'sgd'?"));
  EXPECT_TRUE(has(error_of({"--shuffle", "maybe"}), "on|off"));
  EXPECT_TRUE(has(error_of({"--set", "scheme"}), "key=value"));
  EXPECT_TRUE(has(error_of({"--lr"}), "--lr"));
  EXPECT_TRUE(has(error_of({"resnet18"}), "unexpected argument"));
}

TEST(TrainOptions, RulesBetweenSettings) {
  EXPECT_TRUE(has(error_of({"--schedule", "multistep"}), "--milestones 30,60,90"));
  EXPECT_TRUE(has(error_of({"--schedule", "multistep", "--milestones", "60,30"}), "increase"));
  EXPECT_TRUE(has(error_of({"--nesterov", "--momentum", "0"}), "Nesterov"));
  EXPECT_TRUE(has(error_of({"--nesterov", "--dampening", "0.1"}), "Nesterov"));
  EXPECT_TRUE(has(error_of({"--lr", "0.1", "--lr-min", "0.2"}), "--lr-min"));
  EXPECT_TRUE(has(error_of({"--epochs", "3", "--warmup-epochs", "4"}), "--warmup-epochs"));
  EXPECT_TRUE(has(error_of({"--mean", "0.5,0.5,0.5"}), "--std"));
  EXPECT_TRUE(has(error_of({"--mean", "0.5,0.5", "--std", "1,1,1"}), "expected 3"));
  EXPECT_TRUE(has(error_of({"--rrc-scale", "0.9,0.1"}), "--rrc-scale"));
  EXPECT_TRUE(has(error_of({"--rrc-ratio", "2,1"}), "--rrc-ratio"));
  EXPECT_TRUE(has(error_of({"--color-jitter", "0.4,0.4,0.4,0.6"}), "expected 0..0.5"));
  EXPECT_TRUE(has(error_of({"--color-jitter", "0.4"}), "expected 4"));
  EXPECT_TRUE(has(error_of({"--rand-augment", "2,31"}), "expected 0..30"));
  EXPECT_TRUE(has(error_of({"--random-erasing-mode", "pixel"}), "--random-erasing as well"));
  EXPECT_TRUE(has(error_of({"--mix-prob", "0.5"}), "--mixup or --cutmix"));
  EXPECT_TRUE(has(error_of({"--mix-switch-prob", "0.2", "--mixup", "0.2"}), "--mixup and --cutmix"));
  EXPECT_TRUE(has(error_of({"--init-scale", "fc.weight=much"}), "fc.weight"));
  EXPECT_TRUE(has(error_of({"--init", "a", "--resume", "b"}), "exclude"));
}

TEST(TrainOptions, NamesOfFlagsAreUnique) {
  TrainOptions options;
  const std::vector<std::string> names = names_of(train_fields(options));
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
}

TEST(TrainOptions, HelpShowsEveryFlagWithItsDefault) {
  TrainOptions options;
  const Fields fields = train_fields(options);
  const std::string help = help_text({"qtrain", "about", "  example"}, fields);
  for (const Field& field : fields) {
    EXPECT_TRUE(has(help, "--" + field.name + " ") || has(help, "--" + field.name + ",")) << field.name;
    EXPECT_FALSE(field.help.empty()) << field.name;
    EXPECT_FALSE(field.group.empty()) << field.name;
  }
  EXPECT_TRUE(has(help, "images per step [64]"));
}

TEST(TrainOptions, RunFoldersTellModelBitsAndTime) {
  TrainOptions o;
  o.quant = "sat";
  o.a_bits = 2;
  std::tm time{};
  time.tm_year = 126;
  time.tm_mon = 4;
  time.tm_mday = 6;
  time.tm_hour = 7;
  time.tm_isdst = -1;
  const std::time_t now = std::mktime(&time);
  EXPECT_EQ(default_output(o, now), "runs/resnet18-sat-w4a2-20260506-070000");
  o.a_quant = "lsq";
  EXPECT_EQ(default_output(o, now), "runs/resnet18-sat+lsq-w4a2-20260506-070000");
  o.w_quant = o.a_quant = "ttq";
  EXPECT_EQ(default_output(o, now), "runs/resnet18-ttq-w4a32-20260506-070000") << "it is of weights only";
  o = {};
  o.model = "../my net";
  EXPECT_EQ(default_output(o, now), "runs/.._my_net-float-20260506-070000");
}

}  // namespace
}  // namespace qtrain::cli
