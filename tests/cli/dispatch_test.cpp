#include "cli/dispatch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <new>
#include <sstream>

#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

class Dispatch : public testing::Test {
 protected:
  int run(const std::vector<std::string>& arguments) {
    out_.str("");
    err_.str("");
    ran_.clear();
    return dispatch(arguments, commands_, out_, err_);
  }

  // One line on the error stream, nothing else done, status 2.
  void expect_refused(const std::vector<std::string>& arguments, const std::string& part) {
    EXPECT_EQ(run(arguments), 2);
    const std::string text = err_.str();
    EXPECT_EQ(text.rfind("error: ", 0), 0U) << text;
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(ran_, "");
    EXPECT_EQ(out_.str(), "");
  }

  std::ostringstream out_;
  std::ostringstream err_;
  std::string ran_;
  TrainOptions train_;
  EvalOptions eval_;
  ListOptions list_;
  ApplyOptions apply_;
  VerifyOptions verify_;
  ExplainOptions explain_;
  BenchDataOptions bench_data_;
  PackOptions pack_;
  Commands commands_ = {
      [this](const TrainOptions& o) { return train_ = o, ran_ = "train", 10; },
      [this](const EvalOptions& o) { return eval_ = o, ran_ = "eval", 11; },
      [this](const ListOptions& o) { return list_ = o, ran_ = "list", 12; },
      [this](const ApplyOptions& o) { return apply_ = o, ran_ = "apply", 13; },
      [this](const VerifyOptions& o) { return verify_ = o, ran_ = "verify", 1; },
      [this](const ExplainOptions& o) { return explain_ = o, ran_ = "explain", 14; },
      [this](const BenchDataOptions& o) { return bench_data_ = o, ran_ = "bench-data", 15; },
      [this](const PackOptions& o) { return pack_ = o, ran_ = "pack", 15; },
  };
};

TEST_F(Dispatch, TrainIsTheDefault) {
  EXPECT_EQ(run({}), 10);
  EXPECT_EQ(run({"--model", "resnet20", "--quant", "sat", "--bits", "2"}), 10);
  EXPECT_EQ(train_.model, "resnet20");
  EXPECT_EQ(run({"train", "--bits", "3"}), 10);
  EXPECT_EQ(train_.bits, 3);
}

TEST_F(Dispatch, EvalOptionsArrive) {
  EXPECT_EQ(run({"eval", "--checkpoint", "runs/a", "--data", "D", "-b", "8", "--json"}), 11);
  EXPECT_EQ(eval_.checkpoint, "runs/a");
  EXPECT_EQ(eval_.data, "D");
  EXPECT_EQ(eval_.batch_size, 8);
  EXPECT_TRUE(eval_.json);
}

TEST_F(Dispatch, ListOptionsArrive) {
  EXPECT_EQ(run({"list"}), 12);
  EXPECT_EQ(list_.what, "");
  EXPECT_EQ(run({"list", "--json", "models"}), 12);
  EXPECT_EQ(list_.what, "models");
  EXPECT_TRUE(list_.json);
}

TEST_F(Dispatch, ApplyOptionsArrive) {
  EXPECT_EQ(run({"apply", "--quant", "sat", "--role", "activation", "--bits", "2", "--set", "scheme=original",
                 "--training", "off", "--input", "x", "--output", "y"}),
            13);
  EXPECT_EQ(apply_.quant, "sat");
  EXPECT_EQ(apply_.role, "activation");
  EXPECT_EQ(apply_.bits, 2);
  EXPECT_EQ(apply_.set, (std::vector<Assignment>{{"scheme", "original"}}));
  EXPECT_FALSE(apply_.training);
  EXPECT_EQ(apply_.input + apply_.output, "xy");
}

TEST_F(Dispatch, VerifyTakesFamiliesAndGivesItsOwnStatus) {
  EXPECT_EQ(run({"verify", "--plugin", "p.so", "a.json", "--json", "b.json", "--cases"}), 1);
  EXPECT_EQ(verify_.families, (std::vector<std::string>{"a.json", "b.json"}));
  EXPECT_EQ(verify_.plugin, (std::vector<std::string>{"p.so"}));
  EXPECT_TRUE(verify_.json);
  EXPECT_TRUE(verify_.cases);
}

TEST_F(Dispatch, ExplainOptionsArrive) {
  EXPECT_EQ(run({"explain", "--quant", "sat,none", "--role", "activation", "--bits", "2", "--set", "alpha=1",
                 "--range", "-2,2.5", "--points", "11", "--csv", "c", "--json", "-o", "s"}),
            14);
  EXPECT_EQ(explain_.quant, "sat,none");
  EXPECT_EQ(explain_.role, "activation");
  EXPECT_EQ(explain_.bits, 2);
  EXPECT_EQ(explain_.set, (std::vector<Assignment>{{"alpha", "1"}}));
  EXPECT_EQ(explain_.range, (std::vector<double>{-2, 2.5}));
  EXPECT_EQ(explain_.points, 11);
  EXPECT_EQ(explain_.csv + explain_.output, "cs");
  EXPECT_TRUE(explain_.json);
}

TEST_F(Dispatch, BenchDataOptionsArrive) {
  EXPECT_EQ(run({"bench-data"}), 15);
  EXPECT_EQ(bench_data_.data, "");
  EXPECT_EQ(bench_data_.split, "train");
  EXPECT_EQ(run({"bench-data", "--data",    "D",   "--split",  "val",          "-j",    "3",
                 "--readers",  "0",         "-b",  "8",        "--image-size", "160",   "--augment",
                 "resize",     "--seconds", "0.5", "--images", "100",          "--json"}),
            15);
  EXPECT_EQ(bench_data_.data + bench_data_.split + bench_data_.augment, "Dvalresize");
  EXPECT_EQ(bench_data_.workers, 3);
  EXPECT_EQ(bench_data_.readers, 0);
  EXPECT_EQ(bench_data_.batch_size, 8);
  EXPECT_EQ(bench_data_.image_size, 160);
  EXPECT_EQ(bench_data_.seconds, 0.5);
  EXPECT_EQ(bench_data_.images, 100);
  EXPECT_TRUE(bench_data_.json);
}

TEST_F(Dispatch, PackOptionsArrive) {
  EXPECT_EQ(run({"pack", "--data", "D", "-o", "P", "--shorter-side", "256", "--quality", "80", "-j", "3",
                 "--bad-images", "skip", "--force"}),
            15);
  EXPECT_EQ(pack_.data + pack_.output, "DP");
  EXPECT_EQ(pack_.shorter_side, 256);
  EXPECT_EQ(pack_.quality, 80);
  EXPECT_EQ(pack_.workers, 3);
  EXPECT_EQ(pack_.bad_images, "skip");
  EXPECT_TRUE(pack_.force);
  EXPECT_EQ(run({"pack", "--data", "D", "-o", "P", "--max-side", "128"}), 15);
  EXPECT_EQ(pack_.shorter_side, 128);
  EXPECT_EQ(pack_.quality, std::nullopt);
}

TEST_F(Dispatch, HelpAndVersion) {
  for (const std::string command :
       {"train", "eval", "list", "apply", "explain", "verify", "pack", "bench-data"}) {
    EXPECT_EQ(run({command, "--help"}), 0);
    EXPECT_NE(out_.str().find("Usage: qtrain"), std::string::npos);
    EXPECT_NE(out_.str().find("Examples:\n  qtrain"), std::string::npos);
    EXPECT_EQ(ran_ + err_.str(), "");
  }
  EXPECT_EQ(run({"-h"}), 0);
  EXPECT_NE(out_.str().find("--batch-size"), std::string::npos);
  EXPECT_EQ(run({"--version"}), 0);
  EXPECT_EQ(out_.str().rfind("qtrain ", 0), 0U);
}

TEST_F(Dispatch, MistakesOfTheUserEndWithStatus2) {
  expect_refused({"trian"}, "did you mean 'train'?");
  expect_refused({"--epoch", "3"}, "did you mean --epochs?");
  expect_refused({"eval", "--chekpoint", "x"}, "did you mean --checkpoint?");
  expect_refused({"eval"}, "--checkpoint is missing");
  expect_refused({"list", "modles"}, "did you mean 'models'?");
  expect_refused({"list", "models", "datasets"}, "unexpected argument; got 'datasets'");
  expect_refused({"apply", "--quant", "sat", "-i", "x", "-o", "y", "--role", "gain"},
                 "weight|activation|output|bias");
  expect_refused({"explain", "-o", "x"}, "--quant is missing");
  expect_refused({"explain", "--quant", "sat", "--range", "-2"}, "wrong number of values");
  expect_refused({"verify"}, "families is missing");
  expect_refused({"bench_data"}, "did you mean 'bench-data'?");
  expect_refused({"bench-data", "--split", "test"}, "train|val");
  expect_refused({"bench-data", "--seconds", "0"}, "--seconds");
  expect_refused({"pack", "--data", "D"}, "--output is missing");
  expect_refused({"pack", "--data", "D", "-o", "P", "--shorter-side", "0"}, "1..8192");
  expect_refused({"pack", "--data", "D", "-o", "P", "--quality", "101"}, "1..100");
  expect_refused({"pack", "--data", "D", "-o", "P", "--shorterside", "9"}, "did you mean --shorter-side?");
  expect_refused({"--bits", "0\n"}, "not a whole number");
}

TEST_F(Dispatch, ExceptionsBecomeOneLine) {
  commands_.train = [](const TrainOptions&) -> int { throw IoError({"disk", "full", "", "", ""}); };
  expect_refused({}, "error: [disk] full");
  commands_.train = [](const TrainOptions&) -> int { throw std::runtime_error("a\nb"); };
  EXPECT_EQ(run({}), 1);
  EXPECT_EQ(err_.str(), "error: unexpected: a b\n");
  commands_.train = [](const TrainOptions&) -> int { throw std::bad_alloc(); };
  EXPECT_EQ(run({}), 1);
  EXPECT_NE(err_.str().find("out of memory"), std::string::npos);
}

}  // namespace
}  // namespace qtrain::cli
