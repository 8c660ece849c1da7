// The commands of qtrain: the options of each and the functions that run them. A function returns the exit
// status; mistakes of the user are thrown as qtrain::Error, which main() turns into one line and status 2.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/field.h"
#include "cli/train_options.h"

namespace qtrain::cli {

struct EvalOptions {
  std::string checkpoint;
  std::string data;  // "" = the data set of the checkpoint's run
  std::int64_t batch_size = 64;
  std::optional<std::int64_t> image_size;  // unset: as in training
  std::int64_t workers = 2;
  std::string decode = "auto";  // that of the run
  std::string bad_images = "fail";
  std::string device = "auto";
  std::string precision = "auto";  // that of the run
  std::int64_t threads = 0;        // 0 = all cores
  std::vector<std::string> plugin;
  bool json = false;
};

struct ListOptions {
  std::string what;  // models, quantizers, datasets, optimizers, schedules; "" = everything
  std::vector<std::string> plugin;
  bool json = false;
};

struct ApplyOptions {
  std::string quant;
  std::string role = "weight";
  std::int64_t bits = 4;
  std::vector<Assignment> set;
  bool training = true;
  bool network = false;  // the input is a network's file: overwrite its weights
  std::string input;     // safetensors: x, param.*, state.*, and grad_y for the gradients
  std::string output;    // safetensors: y, grad_x, grad.*, state_after.*
  std::string device = "auto";
  std::vector<std::string> plugin;
};

struct ExplainOptions {
  std::string quant;  // one name, or several separated by commas
  std::string role = "auto";
  std::int64_t bits = 4;
  std::vector<Assignment> set;  // keys may start with `weight.`, `activation.`, ...
  std::vector<double> range;    // two numbers; empty: what shows the quantizer best
  std::int64_t points = 801;
  std::string output;  // SVG
  std::string csv;
  bool json = false;
  std::vector<std::string> plugin;
};

struct VerifyOptions {
  std::vector<std::string> families;  // NAME.json with NAME.safetensors beside it, or folders of them
  bool cases = false;                 // list every case
  std::string device = "auto";
  std::vector<std::string> plugin;
  bool json = false;
};

Fields eval_fields(EvalOptions& options);
Fields list_fields(ListOptions& options);
Fields apply_fields(ApplyOptions& options);
Fields explain_fields(ExplainOptions& options);
Fields verify_fields(VerifyOptions& options);

int run_train(const TrainOptions& options);      // command_train.cpp
int run_eval(const EvalOptions& options);        // command_eval.cpp
int run_list(const ListOptions& options);        // command_list.cpp
int run_apply(const ApplyOptions& options);      // command_apply.cpp
int run_explain(const ExplainOptions& options);  // command_explain.cpp
int run_verify(const VerifyOptions& options);    // command_verify.cpp; 1 and 3 as documented there

}  // namespace qtrain::cli
