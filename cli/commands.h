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

struct BenchDataOptions {
  std::string data;  // "" = the demo set
  std::string split = "train";
  std::int64_t workers = 2;
  std::int64_t readers = 4;
  std::int64_t batch_size = 64;
  std::optional<std::int64_t> image_size;  // unset: as for training
  std::string augment = "auto";
  std::string bad_images = "fail";
  double seconds = 10;      // for all measurements together
  std::int64_t images = 0;  // at most, for each measurement; 0 = no limit
  bool json = false;
};

struct VerifyOptions {
  std::vector<std::string> families;  // NAME.json with NAME.safetensors beside it, or folders of them
  bool cases = false;                 // list every case
  std::string device = "auto";
  std::vector<std::string> plugin;
  bool json = false;
};

struct PackOptions {
  std::string data;
  std::string output;
  std::optional<std::int64_t> shorter_side;  // unset: files as they are
  std::optional<std::int64_t> quality;
  std::optional<std::int64_t> workers;  // unset: one per core
  std::string bad_images = "fail";
  bool force = false;
};

Fields eval_fields(EvalOptions& options);
Fields list_fields(ListOptions& options);
Fields apply_fields(ApplyOptions& options);
Fields explain_fields(ExplainOptions& options);
Fields verify_fields(VerifyOptions& options);
Fields bench_data_fields(BenchDataOptions& options);
Fields pack_fields(PackOptions& options);

int run_train(const TrainOptions& options);           // command_train.cpp
int run_eval(const EvalOptions& options);             // command_eval.cpp
int run_list(const ListOptions& options);             // command_list.cpp
int run_apply(const ApplyOptions& options);           // command_apply.cpp
int run_explain(const ExplainOptions& options);       // command_explain.cpp
int run_verify(const VerifyOptions& options);         // command_verify.cpp; 1 and 3 as documented there
int run_bench_data(const BenchDataOptions& options);  // command_bench_data.cpp
int run_pack(const PackOptions& options);             // command_pack.cpp; 128 + the signal that stopped it

}  // namespace qtrain::cli
