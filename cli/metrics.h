// The CSV files of a run folder: steps.csv and epochs.csv. Numbers are written with the fewest digits that
// read back as the same value, so that two runs can be compared bit for bit. What depends on the clock stands
// in the last columns, so that it can be cut off.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/append_file.h"

namespace qtrain::cli {

struct StepRow {
  std::int64_t epoch = 0;  // from 1
  std::int64_t step = 0;   // from 1, counted over the whole run
  float loss = 0;          // mean of this batch
  double top1 = 0;         // share of this batch, 0..1
  double lr = 0;
  double images_per_second = 0;
  double data_wait_share = 0;  // of the time since the last row, 0..1
};

struct Validation {
  double loss = 0;
  double top1 = 0;
  double top5 = 0;
};

struct EpochRow {
  std::int64_t epoch = 0;
  std::int64_t step = 0;  // of the whole run, at the end of the epoch
  double train_loss = 0;
  double train_top1 = 0;
  std::optional<Validation> validation = {};  // empty cells where none was run
  double lr = 0;                              // of the last step
  double images_per_second = 0;
  double data_wait_share = 0;
  double train_seconds = 0;
  double validation_seconds = 0;
};

inline constexpr int steps_timing_columns = 2;   // the last columns of steps.csv that depend on the clock
inline constexpr int epochs_timing_columns = 4;  // the same of epochs.csv

// One CSV file whose rows are ordered by a column of whole numbers. Opening it keeps the rows up to
// `keep_up_to` (0 starts a new file) and drops the later ones, and a half-written last row, which a resumed
// run writes again.
class CsvFile {
 public:
  // Throws IoError, and FormatError when the rows to be kept belong to other columns.
  CsvFile(const std::string& path, const std::vector<std::string>& columns,
          const std::string& ordering_column, std::int64_t keep_up_to);
  void append(const std::vector<std::string>& cells);  // as many as columns
  void sync() { file_->sync(); }

 private:
  std::string path_;
  std::size_t columns_;
  std::unique_ptr<AppendFile> file_;
};

class Metrics {
 public:
  // `resumed_step`, `resumed_epoch`: the last step and the last whole epoch that the checkpoint holds; rows
  // of later ones go. 0 for a new run. `every`: steps between rows of steps.csv; 0 writes none.
  Metrics(const std::string& folder, std::int64_t every, std::int64_t resumed_step = 0,
          std::int64_t resumed_epoch = 0);

  bool wants(std::int64_t step) const { return every_ > 0 && step % every_ == 0; }
  void step(const StepRow& row);  // writes it if wants(row.step)
  void epoch(const EpochRow& row);
  void sync();  // before a checkpoint is declared saved

 private:
  std::int64_t every_;
  CsvFile steps_;
  CsvFile epochs_;
};

}  // namespace qtrain::cli
