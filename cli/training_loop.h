// The training loop: epochs of steps, evaluations, metrics and checkpoints.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "cli/metrics.h"
#include "cli/progress.h"
#include "cli/run_folder.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "cli/step_meter.h"
#include "cli/tensorboard.h"
#include "cli/training_step.h"

namespace qtrain::cli {

enum class End { complete, step_limit, signal };

// Time and work of a stretch of steps.
struct Span {
  double seconds = 0;
  double wait = 0;  // of these, for data
  std::int64_t images = 0;

  double rate() const { return seconds > 0 ? static_cast<double>(images) / seconds : 0; }
  double wait_share() const { return seconds > 0 ? wait / seconds : 0; }
  void add(double more_seconds, double more_wait, std::int64_t more_images) {
    seconds += more_seconds;
    wait += more_wait;
    images += more_images;
  }
};

struct RunResult {
  End end = End::complete;
  int exit_status = 0;  // of a signal
  RunState state;
  std::optional<Validation> validation;  // of the network as it is now
  Span training;                         // of this process
};

class TrainingLoop {
 public:
  // Goes on from `state`: {} for a new run. `saved`: the folder's last checkpoint is of that state. All of
  // them outlive the loop.
  TrainingLoop(Session& session, const RunFolder& folder, const RunState& state, bool saved);

  // Trains to the end, to --max-steps or to a signal; the state is saved then. NumericError when the loss or
  // the gradient is no longer finite: it names the operation that was the first to go wrong.
  RunResult run();

 private:
  using Clock = std::chrono::steady_clock;

  End run_epoch();      // the rest of the epoch in progress
  bool finish_epoch();  // false: a signal came in between
  void train_batch(const data::Batch& batch);
  void report_step(std::int64_t images, double seconds, double wait_seconds);
  [[noreturn]] void explain_result(const DeviceBatch& input);
  std::optional<Validation> evaluate_network();  // nothing: a signal came in between
  void write_epoch_row();                        // with result_.validation
  bool wants_evaluation() const;                 // at the end of the epoch in progress
  bool at_step_limit() const;
  void save();
  void write(const std::filesystem::path& path);
  RunPlan plan() const;

  Session& session_;
  const RunFolder& folder_;
  RunState state_;
  double earlier_seconds_;  // of the processes before this one
  Clock::time_point started_;
  SignalGuard signals_;
  Metrics metrics_;
  TensorBoardWriter board_;
  StepMeter meter_;
  TrainingStep step_;
  Progress progress_;
  RunResult result_;
  bool saved_;
  std::int64_t saved_step_;  // of the checkpoint in the folder

  Span row_;    // since the last row of steps.csv
  Span epoch_;  // since the epoch's start in this process
  double evaluation_seconds_ = 0;
};

}  // namespace qtrain::cli
