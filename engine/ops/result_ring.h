// The results of the last steps, kept on the device: rows of a few numbers each, the newest in the place of
// the oldest. Where the next row goes is counted on the device too, so that a recorded step (see
// step_graph.h) fills one row after the other. The host reads many rows at once.
#pragma once

#include <span>

#include "engine/core/tensor.h"

namespace qtrain {

class ResultRing {
 public:
  static constexpr std::int64_t most_columns = 4;

  // ValueError for less than one row or column, or too many columns.
  ResultRing(std::int64_t rows, std::int64_t columns, Device device);

  std::int64_t rows() const { return values_.dim(0); }
  // One f32 element a column, on the ring's device. The k-th row from 0 goes to place k % rows().
  void append(std::span<const Tensor> row);
  // All rows by place, as one host read.
  std::vector<float> read() const { return values_.values(); }

 private:
  Tensor values_;    // [rows, columns]
  Tensor appended_;  // i64, how many rows
};

}  // namespace qtrain
