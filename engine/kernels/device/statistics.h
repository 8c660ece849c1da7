// Mean and variance of every column on a GPU, to float32's digits whatever the mean: x is read once.
#pragma once

#include "engine/kernels/batch_norm_arguments.h"
#include "engine/kernels/device/columns.h"
#include "engine/kernels/parallel.h"

namespace qtrain::device {

// Sums around a shift near the mean, the mean of the block's first rows, which stay in registers until it is
// known.
template <class T>
struct MeasureColumns {
  static constexpr int packet = packet_size<T>;
  static constexpr int threads = ColumnTiles<packet>::threads;
  static constexpr int batch = 8;  // rows of a thread that make the shift
  struct Shared {
    double values[2 * packet][threads];
  };

  ColumnTiles<packet> tiles;
  const T* x;
  bool packed;
  float* partial;  // [chunks][3][C]: shift, sum, sum of squares

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const std::int64_t columns = tiles.columns();
    const std::int64_t column = tiles.column(t);
    const std::int64_t chunk = tiles.chunk(t.block);
    const std::int64_t end = column < columns ? tiles.end(chunk) : 0;  // beyond the columns: no rows
    const std::int64_t valid = columns - column;
    const std::int64_t down = tiles.down();
    std::int64_t row = tiles.first_row(t);

    float first[batch][packet];
    float total[packet] = {};
    for (int b = 0; b < batch; ++b)
      if (row + b * down < end) {
        load_columns(first[b], x + (row + b * down) * columns + column, packed, valid);
        for (int j = 0; j < packet; ++j) total[j] += first[b][j];
      }
    for (int j = 0; j < packet; ++j) shared.values[j][t.thread] = static_cast<double>(total[j]);
    combine_threads<Sum>(t, shared.values, packet, tiles.across());
    const std::int64_t all = tiles.end(chunk) - tiles.begin(chunk);
    const auto measured = static_cast<double>(all < batch * down ? all : batch * down);
    float shift[packet];
    for (int j = 0; j < packet; ++j)
      shift[j] = static_cast<float>(shared.values[j][t.thread % tiles.across()] / measured);
    t.sync();

    float sum[packet] = {}, squares[packet] = {};
    for (int b = 0; b < batch; ++b)
      if (row + b * down < end) add(first[b], shift, sum, squares);
    for (row += batch * down; row < end; row += down) {
      float values[packet];
      load_columns(values, x + row * columns + column, packed, valid);
      add(values, shift, sum, squares);
    }
    for (int j = 0; j < packet; ++j) {
      shared.values[j][t.thread] = static_cast<double>(sum[j]);
      shared.values[packet + j][t.thread] = static_cast<double>(squares[j]);
    }
    combine_threads<Sum>(t, shared.values, 2 * packet, tiles.across());
    if (t.thread < tiles.across()) {
      float* const to = partial + chunk * 3 * columns;
      for (int j = 0; j < packet; ++j)
        if (column + j < columns) {
          to[column + j] = shift[j];
          to[columns + column + j] = static_cast<float>(shared.values[j][t.thread]);
          to[2 * columns + column + j] = static_cast<float>(shared.values[packet + j][t.thread]);
        }
    }
  }

 private:
  QTRAIN_HOST_DEVICE static void add(const float (&values)[packet], const float (&shift)[packet],
                                     float (&sum)[packet], float (&squares)[packet]) {
    for (int j = 0; j < packet; ++j) {
      const float d = values[j] - shift[j];
      sum[j] += d;
      squares[j] += d * d;
    }
  }
};

// Over the chunks, 8 columns a block.
template <int columns_each>
struct MergeStatistics {
  static constexpr int threads = 256;
  struct Shared {
    Moments moments[threads];
  };

  ColumnTiles<columns_each> tiles;
  const float* partial;
  BatchNormTraining finish;

  static constexpr int merged_columns = 8;
  std::int64_t blocks() const { return (tiles.columns() + merged_columns - 1) / merged_columns; }

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const std::int64_t columns = tiles.columns();
    const std::int64_t c = t.block * merged_columns + t.thread % merged_columns;
    Moments mine;
    if (c < columns)
      for (std::int64_t b = t.thread / merged_columns; b < tiles.chunks(); b += threads / merged_columns) {
        const float* const from = partial + b * 3 * columns + c;
        mine.add(moments_around(from[0], static_cast<double>(tiles.end(b) - tiles.begin(b)), from[columns],
                                from[2 * columns]));
      }
    shared.moments[t.thread] = mine;
    merge_threads(t, merged_columns,
                  [&](std::int64_t i, std::int64_t j) { shared.moments[i].add(shared.moments[j]); });
    if (t.thread < merged_columns && c < columns) finish(c, shared.moments[t.thread]);
  }
};

template <class T>
void batch_norm_statistics(const Stream& stream, const Tensor& x, const BatchNormTraining& finish) {
  using Measure = MeasureColumns<T>;
  constexpr std::int64_t rows_each = 32;
  const std::int64_t columns = x.dim(1);
  const ColumnTiles<Measure::packet> tiles(x.numel() / columns, columns, rows_each);
  const bool packed = columns % Measure::packet == 0 && is_aligned<Measure::packet>(x.data<T>());
  const Scratch<float> partial(stream, tiles.chunks() * 3 * columns);
  launch(stream, tiles.blocks(), Measure{tiles, x.data<T>(), packed, partial.data()});
  const MergeStatistics<Measure::packet> merge{tiles, partial.data(), finish};
  launch(stream, merge.blocks(), merge);
}

}  // namespace qtrain::device
