#include "cli/metrics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "cli/field.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

const std::vector<std::string> step_columns = {
    "epoch", "step", "loss", "top1", "lr", "images_per_second", "data_wait_share"};
const std::vector<std::string> epoch_columns = {
    "epoch",    "step", "train_loss",        "train_top1",      "val_loss",      "val_top1",
    "val_top5", "lr",   "images_per_second", "data_wait_share", "train_seconds", "val_seconds"};

std::string joined(const std::vector<std::string>& cells) {
  return fmt::format("{}\n", fmt::join(cells, ","));
}

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells(1);
  for (const char c : line) {
    if (c == ',') {
      cells.emplace_back();
    } else {
      cells.back() += c;
    }
  }
  return cells;
}

// The header and all whole rows whose ordering value is at most `keep_up_to`.
std::string kept_rows(const std::string& path, const std::vector<std::string>& columns,
                      const std::string& ordering_column, std::int64_t keep_up_to) {
  std::string header = joined(columns);
  std::ifstream file(path, std::ios::binary);
  std::string line;
  if (!file || !std::getline(file, line)) return header;
  if (line + "\n" != header)
    throw FormatError({path, "the columns are of another version", line,
                       fmt::format("{}", fmt::join(columns, ",")), "move the file away to start a new one"});
  const auto order =
      static_cast<std::size_t>(std::find(columns.begin(), columns.end(), ordering_column) - columns.begin());
  std::string kept = header;
  while (std::getline(file, line) && !file.eof()) {  // eof: the last row has no end of line
    const std::vector<std::string> cells = cells_of(line);
    const auto value = cells.size() == columns.size() ? to_integer(cells[order]) : std::nullopt;
    if (value && *value <= keep_up_to) kept += line + "\n";
  }
  return kept;
}

// Replaces a file in one step: whatever happens, the old or the new content is there.
void replace_file(const std::string& path, const std::string& content) {
  const std::string temporary = path + ".new";
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);
  {
    AppendFile file(temporary);
    file.append(content);
    file.sync();
  }
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  if (error) throw IoError({path, "can't replace the file", error.message(), "", ""});
}

std::string number(double value) {
  return number_text(value);
}

}  // namespace

CsvFile::CsvFile(const std::string& path, const std::vector<std::string>& columns,
                 const std::string& ordering_column, std::int64_t keep_up_to)
    : path_(path), columns_(columns.size()) {
  replace_file(path,
               keep_up_to > 0 ? kept_rows(path, columns, ordering_column, keep_up_to) : joined(columns));
  file_ = std::make_unique<AppendFile>(path);
}

void CsvFile::append(const std::vector<std::string>& cells) {
  if (cells.size() != columns_)
    throw ValueError(
        {path_, "wrong number of cells", std::to_string(cells.size()), std::to_string(columns_), ""});
  file_->append(joined(cells));
}

Metrics::Metrics(const std::string& folder, std::int64_t every, std::int64_t resumed_step,
                 std::int64_t resumed_epoch)
    : every_(every),
      steps_(folder + "/steps.csv", step_columns, "step", resumed_step),
      epochs_(folder + "/epochs.csv", epoch_columns, "epoch", resumed_epoch) {}

void Metrics::step(const StepRow& row) {
  if (!wants(row.step)) return;
  // The loss is a float: its own shortest digits, not those of the wider type.
  steps_.append({std::to_string(row.epoch), std::to_string(row.step), fmt::format("{}", row.loss),
                 number(row.top1), number(row.lr), fmt::format("{:.1f}", row.images_per_second),
                 fmt::format("{:.4f}", row.data_wait_share)});
}

void Metrics::epoch(const EpochRow& row) {
  const auto cell = [&](double Validation::*value) {
    return row.validation ? number((*row.validation).*value) : std::string();
  };
  epochs_.append({std::to_string(row.epoch), std::to_string(row.step), number(row.train_loss),
                  number(row.train_top1), cell(&Validation::loss), cell(&Validation::top1),
                  cell(&Validation::top5), number(row.lr), fmt::format("{:.1f}", row.images_per_second),
                  fmt::format("{:.4f}", row.data_wait_share), fmt::format("{:.2f}", row.train_seconds),
                  fmt::format("{:.2f}", row.validation_seconds)});
}

void Metrics::sync() {
  steps_.sync();
  epochs_.sync();
}

}  // namespace qtrain::cli
