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

}  // namespace

void detail::batch_norm_statistics_on_host(const Tensor& x, const BatchNormTraining& finish) {
  const std::int64_t channels = x.dim(1);
  const std::int64_t rows = x.numel() / channels;
  const std::int64_t block = rows_per_block(channels);
  const std::int64_t blocks = (rows + block - 1) / block;
  const BlockStatistics of_blocks(blocks * channels);
  measure_blocks(x.data<float>(), rows, channels, of_blocks);
  parallel_for(channels, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      Moments all;
      for (std::int64_t b = 0; b < blocks; ++b) {
        const std::int64_t at = b * channels + c;
        all.add(moments_around(of_blocks.mean.data()[at],
                               static_cast<double>(std::min(block, rows - b * block)),
                               of_blocks.rest.data()[at], of_blocks.squares.data()[at]));
      }
      finish(c, all);
    }
  });
}

}  // namespace qtrain
