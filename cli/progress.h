// The progress line of a run:
//   epoch 3/10  step 120/625  loss 1.234  top-1 56.7%  231 img/s  wait 1%  ETA 2m10s
// On a terminal one line is rewritten, with fewer fields where it is narrow; elsewhere a plain line is
// printed now and then.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

namespace qtrain::cli {

// What the whole run will do, for the ETA.
struct RunPlan {
  std::int64_t epochs = 0;
  std::int64_t steps_per_epoch = 0;
  std::int64_t total_steps = 0;         // of all epochs, or --max-steps
  std::int64_t evaluations = 0;         // over the whole run, including those already done
  std::int64_t evaluation_batches = 0;  // of one evaluation
};

struct StepProgress {
  std::int64_t epoch = 0;          // from 1
  std::int64_t step_in_epoch = 0;  // from 1
  std::int64_t step = 0;           // from 1, counted over the whole run
  double loss = 0;                 // shown as they are: means over the epoch so far read best
  double top1 = 0;                 // 0..1
  std::int64_t images = 0;         // of this step
  double seconds = 0;              // this step took, waiting included
  double wait_seconds = 0;         // of these, waiting for data
};

class Progress {
 public:
  struct Output {
    std::ostream* stream = nullptr;
    bool terminal = false;          // rewrite one line
    std::function<int()> width;     // columns of the terminal now; 0 = unknown
    std::function<double()> clock;  // seconds, any origin
    std::int64_t log_interval = 0;  // off a terminal: steps between lines; 0 = a line every 10 s
  };

  // Standard output as it is: a terminal or not, its width, a steady clock.
  static Output standard_output(std::int64_t log_interval);

  // `evaluations_done`: before a resumed run starts.
  Progress(Output output, const RunPlan& plan, std::int64_t evaluations_done = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepProgress& now);
  // After `batch` (from 1) of an evaluation; `seconds` is the time since its start.
  void evaluation(std::int64_t batch, double seconds);
  // Prints a line that stays, such as an epoch's result.
  void line(const std::string& text);

  double images_per_second() const;
  double wait_share() const;  // 0..1
  double eta_seconds() const;

 private:
  bool due(std::int64_t step);
  void show(const std::vector<std::string>& fields, const std::vector<std::size_t>& expendable);
  std::string eta_text() const;

  Output output_;
  RunPlan plan_;
  StepProgress now_;
  std::int64_t evaluations_done_;
  double evaluation_seconds_ = 0;  // of the last whole evaluation, 0 = none yet
  double running_evaluation_ = 0;  // seconds that the one in progress still needs
  bool evaluating_ = false;
  // Sums that fade by a constant factor a step: their quotients are the smoothed rates, without start-up
  // bias.
  double steps_ = 0;
  double images_ = 0;
  double seconds_ = 0;
  double wait_ = 0;
  std::int64_t seen_ = 0;
  double shown_at_ = 0;
  bool shown_before_ = false;
  bool line_open_ = false;
};

// "45s", "2m10s", "1h02m", "3d04h".
std::string duration_text(double seconds);

}  // namespace qtrain::cli
