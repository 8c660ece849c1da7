// What a checkpoint holds: the network (`model.*`), the optimizer (`optimizer.*`), and as metadata the run's
// settings, how far it has come and the names of its classes. Random numbers need no state: they are
// functions of the seed, the epoch and the sample.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/metrics.h"
#include "cli/train_options.h"
#include "engine/io/checkpoint_file.h"
#include "engine/optim/optimizer.h"
#include "layers/module.h"

namespace qtrain::cli {

// How far a run has come, with the sums behind the metrics of the epoch in progress.
struct RunState {
  std::int64_t epoch = 0;    // whole epochs
  std::int64_t batches = 0;  // of the epoch in progress
  std::int64_t step = 0;     // updates so far
  double loss_sum = 0;       // over the images of the epoch in progress
  double correct = 0;
  std::int64_t images = 0;
  std::int64_t evaluations = 0;
  std::optional<Validation> validation = {};  // the last one
  double best_top1 = -1;                      // below 0: none yet
  std::int64_t best_epoch = 0;
  double seconds = 0;  // of work, over all processes of the run
};

struct Checkpoint {
  CheckpointFile file;
  TrainOptions options;  // with everything decided that was left to `auto`; output and resume are empty
  RunState state;
  std::vector<std::string> class_names;
};

// Atomic; see save_checkpoint.
void write_checkpoint(const std::filesystem::path& path, Module& network, const Optimizer& optimizer,
                      const TrainOptions& options, const RunState& state,
                      const std::vector<std::string>& class_names);

// Verifies the checksum and reads everything but the tensors. FormatError for damage, and for files that are
// no checkpoints of a run.
Checkpoint read_checkpoint(const std::filesystem::path& path);

// ValueError, naming the file, where the tensors don't fit.
void restore_network(const Checkpoint& checkpoint, Module& network);
void restore_optimizer(const Checkpoint& checkpoint, Optimizer& optimizer);

// The settings as they are kept: a configuration file of their own that starts another run.
std::string settings_text(TrainOptions options);

}  // namespace qtrain::cli
