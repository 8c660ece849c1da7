// From the arguments of main() to one command and an exit status.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace qtrain::cli {

// What runs each command; tests put their own here.
struct Commands {
  std::function<int(const TrainOptions&)> train = run_train;
  std::function<int(const EvalOptions&)> eval = run_eval;
  std::function<int(const ListOptions&)> list = run_list;
  std::function<int(const ApplyOptions&)> apply = run_apply;
  std::function<int(const VerifyOptions&)> verify = run_verify;
  std::function<int(const ExplainOptions&)> explain = run_explain;
  std::function<int(const BenchDataOptions&)> bench_data = run_bench_data;
  std::function<int(const PackOptions&)> pack = run_pack;
};

// Runs `qtrain <arguments>`: train when no command is named. Exit status: the command's own; 2 and one line
// `error: ...` for a mistake of the user (qtrain::Error); 1 and one line for every other exception.
int dispatch(const std::vector<std::string>& arguments, const Commands& commands, std::ostream& out,
             std::ostream& err);

// Flags over the configuration file over the defaults, validated. Throws like the parts it is made of.
TrainOptions train_options(const std::vector<std::string>& arguments);

}  // namespace qtrain::cli
