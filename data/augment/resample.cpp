#include "data/augment/resample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/core/error.h"

namespace qtrain::data {
namespace {

constexpr int weight_bits = 22;  // weights below 1 and 8-bit samples: sums of products fit 32 bits
constexpr std::uint32_t half = 1 << (weight_bits - 1);

// The source samples first .. first+count-1.
struct Span {
  int first = 0;
  int count = 0;

  int end() const { return first + count; }
};

// One axis: `length` source samples from `begin` on become `size` result samples.
class Axis {
 public:
  Axis(double begin, double length, int size)
      : begin_(std::floor(begin)),
        offset_(begin - begin_),
        scale_(length / size),
        support_(std::max(1.0, scale_)),
        available_(std::ceil(offset_ + length)) {}

  // What result sample i is made of: the source samples whose middles the filter covers, as far as the crop
  // has them.
  Span span(int i) const {
    const double middle = center(i);
    const double first = std::max(0.0, std::floor(middle - support_ + 0.5));
    const double end = std::min(available_, std::floor(middle + support_ + 0.5));
    return {static_cast<int>(begin_ + first), static_cast<int>(end - first)};
  }
  double weight(int i, int source) const {
    return std::max(0.0, 1.0 - std::abs((source - begin_ - center(i) + 0.5) * (1.0 / support_)));
  }
  std::size_t most_taps() const { return static_cast<std::size_t>(std::ceil(support_)) * 2 + 1; }

 private:
  double center(int i) const { return offset_ + (i + 0.5) * scale_; }  // counted from begin_

  double begin_;
  double offset_;
  double scale_;
  double support_;
  double available_;
};

// The weights of the results begin .. begin+size-1 of an axis. The memory is kept for the next image.
struct Taps {
  std::vector<Span> spans;
  std::vector<std::uint32_t> weights;  // `stride` for each result sample
  std::size_t stride = 0;

  void compute(const Axis& axis, int begin, int size) {
    stride = axis.most_taps();
    spans.resize(static_cast<std::size_t>(size));
    weights.resize(stride * spans.size());
    exact_.resize(stride);
    for (int i = 0; i < size; ++i) {
      const Span span = axis.span(begin + i);
      const auto count = static_cast<std::size_t>(span.count);
      double sum = 0;
      for (std::size_t k = 0; k < count; ++k) {
        exact_[k] = axis.weight(begin + i, span.first + static_cast<int>(k));
        sum += exact_[k];
      }
      spans[static_cast<std::size_t>(i)] = span;
      std::uint32_t* rounded = weights.data() + static_cast<std::size_t>(i) * stride;
      for (std::size_t k = 0; k < count; ++k) {
        rounded[k] = static_cast<std::uint32_t>(std::floor(exact_[k] / sum * (1 << weight_bits) + 0.5));
      }
    }
  }

 private:
  std::vector<double> exact_;
};

// Both passes add up 32-bit words of bytes, a register of them at a time with one weight for all. Along rows,
// a word is a pixel, and the register holds the same column of several rows, brought together by gather();
// along columns, a word is any four bytes of a row.
#if defined(__AVX512F__)
constexpr std::size_t lanes = 16;
#elif defined(__AVX2__)
constexpr std::size_t lanes = 8;
#else
constexpr std::size_t lanes = 4;
#endif
constexpr std::size_t word = 4;  // bytes
using Words = std::uint32_t __attribute__((vector_size(word * lanes)));

// The weighted sum of each of the lower `bytes` bytes of all words: out = sum of weights[k] * in[k * stride].
template <int bytes>
inline void weighted_sum(const std::uint8_t* in, std::size_t stride, const std::uint32_t* weights, int count,
                         std::uint8_t* out) {
  Words sums[bytes];
  for (Words& sum : sums) sum = Words{} + half;
  for (int k = 0; k < count; ++k, in += stride) {
    Words words;
    std::memcpy(&words, in, sizeof(words));
    for (int i = 0; i < bytes; ++i) sums[i] += ((words >> (8 * i)) & 255U) * weights[k];
  }
  Words result{};
  for (int i = 0; i < bytes; ++i) {
    const Words value = sums[i] >> weight_bits;
    result |= (value > 255U ? Words{} + 255U : value) << (8 * i);  // more by the rounding of many weights
  }
  std::memcpy(out, &result, sizeof(result));
}

// `width` pixels of `rows` rows, column by column: pixel (x, y) becomes word x * lanes + y.
// A word's fourth byte is the next pixel's first, and has no influence.
void gather(const std::uint8_t* from, std::size_t stride, std::size_t width, std::size_t rows,
            std::uint8_t* to) {
  for (std::size_t x = 0; x + 1 < width; ++x, to += sizeof(Words)) {
    for (std::size_t y = 0; y < rows; ++y) std::memcpy(to + word * y, from + y * stride + 3 * x, word);
  }
  for (std::size_t y = 0; y < rows; ++y) std::memcpy(to + word * y, from + y * stride + 3 * (width - 1), 3);
}

// Everything of one call, in memory that a thread keeps.
struct Scratch {
  Taps across;
  Taps down;
  std::vector<std::uint8_t> columns;  // of `lanes` rows of the source
  std::vector<std::uint8_t> rows;     // what the first pass makes
};

std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Along rows: from the pixels `reads` of the image to `scratch.rows`, whose rows are `row_stride` apart.
void resample_rows(const Image& image, const Box& reads, bool flip, std::size_t row_stride,
                   Scratch& scratch) {
  const std::size_t stride = std::size_t{3} * static_cast<std::size_t>(image.width);
  const auto height = static_cast<std::size_t>(reads.height);
  const auto width = static_cast<std::size_t>(reads.width);
  const std::size_t results = scratch.across.spans.size();
  const std::uint8_t* from = image.rgb.data() + static_cast<std::size_t>(reads.top) * stride +
                             std::size_t{3} * static_cast<std::size_t>(reads.left);
  scratch.columns.resize(width * sizeof(Words));
  for (std::size_t y = 0; y < height; y += lanes) {
    const std::size_t rows = std::min(lanes, height - y);
    gather(from + y * stride, stride, width, rows, scratch.columns.data());
    std::uint8_t* to = scratch.rows.data() + y * row_stride;
    for (std::size_t i = 0; i < results; ++i, to += 3) {
      const std::size_t x = flip ? results - 1 - i : i;
      const Span span = scratch.across.spans[x];
      std::uint8_t column[sizeof(Words)];
      weighted_sum<3>(
          scratch.columns.data() + static_cast<std::size_t>(span.first - reads.left) * sizeof(Words),
          sizeof(Words), scratch.across.weights.data() + x * scratch.across.stride, span.count, column);
      for (std::size_t r = 0; r < rows; ++r) std::memcpy(to + r * row_stride, column + word * r, word);
    }
  }
}

// Along columns: from `scratch.rows`, the first of which is the image's row `top`, to `out`.
void resample_columns(const Scratch& scratch, int top, std::size_t row_stride, std::size_t row_bytes,
                      std::uint8_t* out) {
  const Taps& down = scratch.down;
  for (std::size_t y = 0; y < down.spans.size(); ++y, out += row_bytes) {
    const std::uint8_t* from =
        scratch.rows.data() + static_cast<std::size_t>(down.spans[y].first - top) * row_stride;
    const std::uint32_t* weights = down.weights.data() + y * down.stride;
    std::size_t at = 0;
    for (; at + sizeof(Words) <= row_bytes; at += sizeof(Words)) {
      weighted_sum<4>(from + at, row_stride, weights, down.spans[y].count, out + at);
    }
    if (at == row_bytes) continue;
    std::uint8_t rest[sizeof(Words)];
    weighted_sum<4>(from + at, row_stride, weights, down.spans[y].count, rest);
    std::memcpy(out + at, rest, row_bytes - at);
  }
}

// From the first sample of the first result to the last one of the last.
Span reach(const Axis& axis, int begin, int size) {
  const int first = axis.span(begin).first;
  return {first, axis.span(begin + size - 1).end() - first};
}

}  // namespace

Box resample_reads(const RealBox& crop, Size full, const Box& window) {
  const Span x = reach(Axis(crop.left, crop.width, full.width), window.left, window.width);
  const Span y = reach(Axis(crop.top, crop.height, full.height), window.top, window.height);
  return {x.first, y.first, x.count, y.count};
}

void resample(const Image& image, const RealBox& crop, Size full, const Box& window, bool flip,
              std::span<std::uint8_t> out) {
  const std::size_t row_bytes = std::size_t{3} * static_cast<std::size_t>(std::max(window.width, 0));
  const bool possible = crop.width > 0 && crop.height > 0 && inside(window, full) &&
                        out.size() == row_bytes * static_cast<std::size_t>(window.height);
  const Box reads = possible ? resample_reads(crop, full, window) : Box{};
  if (!inside(reads, image.size())) {
    throw ShapeError(
        {.where = "resample",
         .what = "crop or window outside of the image",
         .got = fmt::format("crop {}x{}+{}+{} of {}x{}, window {}x{}+{}+{} of {}x{}", crop.width, crop.height,
                            crop.left, crop.top, image.width, image.height, window.width, window.height,
                            window.left, window.top, full.width, full.height)});
  }
  thread_local Scratch scratch;
  scratch.across.compute(Axis(crop.left, crop.width, full.width), window.left, window.width);
  scratch.down.compute(Axis(crop.top, crop.height, full.height), window.top, window.height);
  // Rows are whole groups of words, behind which the last pixel's fourth byte has room.
  const std::size_t row_stride = round_up(row_bytes + 1, sizeof(Words));
  scratch.rows.resize(row_stride * static_cast<std::size_t>(reads.height));
  resample_rows(image, reads, flip, row_stride, scratch);
  resample_columns(scratch, reads.top, row_stride, row_bytes, out.data());
}

}  // namespace qtrain::data
