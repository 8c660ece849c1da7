// Statistics are exact to float32 whatever the mean: each block of rows gives its mean and its sum of squared
// deviations (both passes in cache), and blocks are merged in a fixed order in double (Chan, Golub, LeVeque
// 1979). The deviations' own sum takes back what rounding did to the first pass's mean (the corrected
// two-pass algorithm).
#include "engine/kernels/batch_norm.h"
#include "engine/kernels/columns.h"

namespace qtrain {
namespace {

// One block of rows is small enough to stay in the first-level cache between its passes.
std::int64_t rows_per_block(std::int64_t channels) {
  return std::max<std::int64_t>(4, 8192 / channels);
}

// The mean and the squared deviations of each block, [blocks][C].
struct BlockStatistics {
  Scratch<float> mean, squares, rest;
  explicit BlockStatistics(std::int64_t n) : mean({}, n), squares({}, n), rest({}, n) {}
};

template <class T>
void measure_blocks(const T* x, std::int64_t rows, std::int64_t channels, const BlockStatistics& statistics) {
  const std::int64_t block = rows_per_block(channels);
  parallel_for((rows + block - 1) / block, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = b * block;
      const std::int64_t count = std::min(block, rows - first);
      const T* const from = x + first * channels;
      float* mean = statistics.mean.data() + b * channels;
      float* squares = statistics.squares.data() + b * channels;
      float* rest = statistics.rest.data() + b * channels;
      reduce_columns<1>(count, channels, {mean}, [from](auto load, std::int64_t i, std::int64_t) {
        return std::array{load(from + i)};
      });
      for (std::int64_t c = 0; c < channels; ++c) mean[c] /= static_cast<float>(count);
      reduce_columns<2>(count, channels, {squares, rest},
                        [from, mean](auto load, std::int64_t i, std::int64_t c) {
                          const auto d = load(from + i) - load(mean + c);
                          return std::array{d * d, d};
                        });
    }
  });
}

// Channels whose blocks are merged beside each other: what they have in common is computed once.
constexpr std::int64_t together = 64;

void merge_blocks(const BlockStatistics& of_blocks, std::int64_t rows, std::int64_t channels,
                  std::int64_t first, std::int64_t last, const BatchNormTraining& finish) {
  const std::int64_t block = rows_per_block(channels);
  double mean[together] = {};
  double squares[together] = {};
  double n = 0;
  for (std::int64_t b = 0; b * block < rows; ++b) {
    const auto count = static_cast<double>(std::min(block, rows - b * block));
    const float* const means = of_blocks.mean.data() + b * channels + first;
    const float* const rests = of_blocks.rest.data() + b * channels + first;
    const float* const of_squares = of_blocks.squares.data() + b * channels + first;
#pragma omp simd
    for (std::int64_t c = 0; c < last - first; ++c) {
      Moments m{n, mean[c], squares[c]};
      m.add(moments_around(means[c], count, rests[c], of_squares[c]));
      mean[c] = m.mean;
      squares[c] = m.squares;
    }
    n += count;
  }
  for (std::int64_t c = first; c < last; ++c) finish(c, {n, mean[c - first], squares[c - first]});
}

}  // namespace

void detail::batch_norm_statistics_on_host(const Tensor& x, const BatchNormTraining& finish) {
  const std::int64_t channels = x.dim(1);
  const std::int64_t rows = x.numel() / channels;
  const std::int64_t block = rows_per_block(channels);
  const std::int64_t blocks = (rows + block - 1) / block;
  const BlockStatistics of_blocks(blocks * channels);
  measure_blocks(x.data<float>(), rows, channels, of_blocks);
  parallel_for((channels + together - 1) / together, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      merge_blocks(of_blocks, rows, channels, i * together, std::min(channels, (i + 1) * together), finish);
  });
}

}  // namespace qtrain
