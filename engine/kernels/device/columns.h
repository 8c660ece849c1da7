// Threads of a GPU over a row-major matrix with a result a column: neighbouring threads have neighbouring
// packets of columns, and a thread goes down its columns in steps of as many rows as the block is high.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/kernels/device/block_sums.h"
#include "engine/kernels/device/packet.h"
#include "engine/kernels/device/thread.h"

namespace qtrain::device {

// Blocks are columns tiles x chunks of rows. Everything depends on the sizes alone, so sums have a fixed
// order.
template <int columns_each>
class ColumnTiles {
 public:
  static constexpr int threads = reduction_threads;

  // `rows_each`: rows of a thread, unless that would leave most of a GPU idle.
  ColumnTiles(std::int64_t rows, std::int64_t columns, std::int64_t rows_each)
      : rows_(rows), columns_(columns) {
    constexpr std::int64_t enough_blocks = 512;
    const std::int64_t packets = (columns + columns_each - 1) / columns_each;
    while (across_ < 32 && across_ < packets) across_ *= 2;
    tiles_ = (packets + across_ - 1) / across_;
    const std::int64_t wanted = rows * tiles_ / (enough_blocks * down());
    chunk_ = std::clamp(wanted, std::min<std::int64_t>(rows_each, 8), rows_each) * down();
    chunks_ = (rows + chunk_ - 1) / chunk_;
  }

  std::int64_t blocks() const { return tiles_ * chunks_; }
  QTRAIN_HOST_DEVICE std::int64_t chunks() const { return chunks_; }
  QTRAIN_HOST_DEVICE std::int64_t columns() const { return columns_; }
  QTRAIN_HOST_DEVICE std::int64_t across() const { return across_; }          // threads side by side
  QTRAIN_HOST_DEVICE std::int64_t down() const { return threads / across_; }  // rows at once
  QTRAIN_HOST_DEVICE std::int64_t chunk(std::int64_t block) const { return block / tiles_; }

  // Of a chunk of rows.
  QTRAIN_HOST_DEVICE std::int64_t begin(std::int64_t chunk) const { return chunk * chunk_; }
  QTRAIN_HOST_DEVICE std::int64_t end(std::int64_t chunk) const {
    const std::int64_t end = (chunk + 1) * chunk_;
    return end < rows_ ? end : rows_;
  }

  // Of a thread.
  template <class Thread>
  QTRAIN_HOST_DEVICE std::int64_t column(const Thread& t) const {
    return (t.block % tiles_ * across_ + t.thread % across_) * columns_each;
  }
  template <class Thread>
  QTRAIN_HOST_DEVICE std::int64_t first_row(const Thread& t) const {
    return begin(chunk(t.block)) + t.thread / across_;
  }

 private:
  std::int64_t rows_, columns_;
  std::int64_t across_ = 1, tiles_ = 1, chunk_ = 1, chunks_ = 1;
};

// `count` neighbouring elements as floats. Where packets don't fit the matrix, those below `valid`, one by
// one.
template <int count, class T>
QTRAIN_HOST_DEVICE void load_columns(float (&to)[count], const T* from, bool packed, std::int64_t valid) {
  if (packed) {
    const Packet<T, count> packet = load_packet<count>(from);
    for (int j = 0; j < count; ++j) to[j] = load(packet.at[j]);
  } else {
    for (int j = 0; j < count; ++j) to[j] = j < valid ? load(from[j]) : 0.0F;
  }
}

template <int count, class T>
QTRAIN_HOST_DEVICE void store_columns(T* to, const float (&from)[count], bool packed, std::int64_t valid) {
  if (packed) {
    Packet<T, count> packet;
    for (int j = 0; j < count; ++j) store(packet.at[j], from[j]);
    store_packet(to, packet);
  } else {
    for (int j = 0; j < count; ++j)
      if (j < valid) store(to[j], from[j]);
  }
}

}  // namespace qtrain::device
