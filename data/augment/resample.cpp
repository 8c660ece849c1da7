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
constexpr std::int32_t half = 1 << (weight_bits - 1);

// The source samples first .. first+count-1 and their weights, for each result sample of one axis.
struct Taps {
  struct Span {
    int first;
    int count;
  };
  std::vector<Span> spans;
  std::vector<std::int32_t> weights;  // `stride` for each result sample
  std::size_t stride = 0;

  // Taps for the results begin .. begin+size-1 of an axis that shrinks or grows from `source` to `result`.
  void compute(int source, int result, int begin, int size);
};

void Taps::compute(int source, int result, int begin, int size) {
  const double scale = static_cast<double>(source) / result;
  const double support = std::max(1.0, scale);
  stride = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
  spans.resize(static_cast<std::size_t>(size));
  weights.assign(stride * spans.size(), 0);
  std::vector<double> exact(stride);
  for (int i = 0; i < size; ++i) {
    const double center = (begin + i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(center - support + 0.5)));
    const int count = std::min(source, static_cast<int>(std::floor(center + support + 0.5))) - first;
    double sum = 0;
    for (int k = 0; k < count; ++k) {
      const double distance = std::abs((first + k - center + 0.5) * (1.0 / support));
      exact[static_cast<std::size_t>(k)] = std::max(0.0, 1.0 - distance);
      sum += exact[static_cast<std::size_t>(k)];
    }
    const auto index = static_cast<std::size_t>(i);
    spans[index] = {first, count};
    for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k) {
      weights[index * stride + k] =
          static_cast<std::int32_t>(std::floor(exact[k] / sum * (1 << weight_bits) + 0.5));
    }
  }
}

std::uint8_t to_byte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> weight_bits, 0, 255));
}

// One row: `in` starts at the crop's left edge.
void resample_row(const std::uint8_t* in, const Taps& taps, bool flip, std::uint8_t* out) {
  const std::size_t width = taps.spans.size();
  for (std::size_t x = 0; x < width; ++x) {
    const std::uint8_t* pixel = in + std::size_t{3} * static_cast<std::size_t>(taps.spans[x].first);
    const std::int32_t* weight = taps.weights.data() + x * taps.stride;
    std::int32_t r = half;
    std::int32_t g = half;
    std::int32_t b = half;
    for (int k = 0; k < taps.spans[x].count; ++k, pixel += 3) {
      r += pixel[0] * weight[k];
      g += pixel[1] * weight[k];
      b += pixel[2] * weight[k];
    }
    std::uint8_t* to = out + 3 * (flip ? width - 1 - x : x);
    to[0] = to_byte(r);
    to[1] = to_byte(g);
    to[2] = to_byte(b);
  }
}

// One result row as the weighted sum of the rows at `in`; the loops over samples vectorise.
void resample_column(const std::uint8_t* in, std::size_t row_bytes, const std::int32_t* weights, int count,
                     std::vector<std::int32_t>& sums, std::uint8_t* out) {
  sums.assign(row_bytes, half);
  std::int32_t* sum = sums.data();
  for (int k = 0; k < count; ++k, in += row_bytes) {
    const std::int32_t weight = weights[k];
    for (std::size_t i = 0; i < row_bytes; ++i) sum[i] += in[i] * weight;
  }
  for (std::size_t i = 0; i < row_bytes; ++i) out[i] = to_byte(sum[i]);
}

bool inside(const Box& box, Size size) {
  return box.left >= 0 && box.top >= 0 && box.width >= 1 && box.height >= 1 &&
         box.left <= size.width - box.width && box.top <= size.height - box.height;
}

}  // namespace

void resample(const Image& image, const Box& crop, Size full, const Box& window, bool flip,
              std::span<std::uint8_t> out) {
  const auto out_bytes = [](const Box& b) {
    return std::size_t{3} * static_cast<std::size_t>(b.width) * static_cast<std::size_t>(b.height);
  };
  if (!inside(crop, image.size()) || !inside(window, full) || out.size() != out_bytes(window)) {
    throw ShapeError(
        {.where = "resample",
         .what = "crop or window outside of the image",
         .got = fmt::format("crop {}x{}+{}+{} of {}x{}, window {}x{}+{}+{} of {}x{}", crop.width, crop.height,
                            crop.left, crop.top, image.width, image.height, window.width, window.height,
                            window.left, window.top, full.width, full.height)});
  }
  // Scratch memory of a thread, kept so that a loader's threads don't allocate for each image.
  thread_local Taps across;
  thread_local Taps down;
  thread_local std::vector<std::uint8_t> rows;
  thread_local std::vector<std::int32_t> sums;
  across.compute(crop.width, full.width, window.left, window.width);
  down.compute(crop.height, full.height, window.top, window.height);

  const int first_row = down.spans.front().first;
  const int row_count = down.spans.back().first + down.spans.back().count - first_row;
  const std::size_t row_bytes = std::size_t{3} * static_cast<std::size_t>(window.width);
  const std::size_t image_stride = std::size_t{3} * static_cast<std::size_t>(image.width);
  rows.resize(row_bytes * static_cast<std::size_t>(row_count));
  const std::uint8_t* in = image.rgb.data() + image_stride * static_cast<std::size_t>(crop.top + first_row) +
                           std::size_t{3} * static_cast<std::size_t>(crop.left);
  for (std::size_t y = 0; y < static_cast<std::size_t>(row_count); ++y) {
    resample_row(in + y * image_stride, across, flip, rows.data() + y * row_bytes);
  }
  for (std::size_t y = 0; y < down.spans.size(); ++y) {
    const std::uint8_t* from =
        rows.data() + row_bytes * static_cast<std::size_t>(down.spans[y].first - first_row);
    resample_column(from, row_bytes, down.weights.data() + y * down.stride, down.spans[y].count, sums,
                    out.data() + y * row_bytes);
  }
}

}  // namespace qtrain::data
