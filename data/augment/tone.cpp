#include "data/augment/tone.h"

#include <array>
#include <numeric>

namespace qtrain::data {
namespace {

using Table = std::array<std::uint8_t, 256>;
using Histogram = std::array<std::uint32_t, 256>;

template <class Curve>
Table table_of(const Curve& curve) {
  Table table{};
  for (int v = 0; v < 256; ++v) table[static_cast<std::size_t>(v)] = to_byte(curve(v));
  return table;
}

void look_up(const Pixels& image, const std::array<Table, 3>& tables) {
  std::uint8_t* pixel = image.rgb.data();
  const std::size_t count = image.count();
  for (std::size_t i = 0; i < count; ++i, pixel += 3)
    for (std::size_t c = 0; c < 3; ++c) pixel[c] = tables[c][pixel[c]];
}

std::array<Histogram, 3> histograms(const Pixels& image) {
  std::array<Histogram, 3> result{};
  const std::uint8_t* pixel = image.rgb.data();
  const std::size_t count = image.count();
  for (std::size_t i = 0; i < count; ++i, pixel += 3)
    for (std::size_t c = 0; c < 3; ++c) ++result[c][pixel[c]];
  return result;
}

struct Values {
  int smallest;
  int largest;
};

Values values_of(const Histogram& histogram) {
  int low = 0;
  int high = 255;
  while (histogram[static_cast<std::size_t>(low)] == 0) ++low;
  while (histogram[static_cast<std::size_t>(high)] == 0) --high;
  return {low, high};
}

Table autocontrast_table(const Histogram& histogram) {
  const auto [low, high] = values_of(histogram);
  if (low == high) return table_of([](int v) { return v; });
  const double scale = 255.0 / (high - low);
  const double offset = -low * scale;
  return table_of([&](int v) { return static_cast<int>(v * scale + offset); });
}

Table equalize_table(const Histogram& histogram) {
  const auto largest = static_cast<std::size_t>(values_of(histogram).largest);
  const std::uint32_t pixels = std::accumulate(histogram.begin(), histogram.end(), 0U);
  const std::uint32_t step = (pixels - histogram[largest]) / 255;
  if (step == 0) return table_of([](int v) { return v; });
  std::uint32_t below = step / 2;
  return table_of([&](int v) {
    const std::uint32_t level = below / step;
    below += histogram[static_cast<std::size_t>(v)];
    return static_cast<int>(level);
  });
}

template <class MakeTable>
void look_up_by_histogram(const Pixels& image, const MakeTable& make_table) {
  if (image.rgb.empty()) return;
  const std::array<Histogram, 3> of = histograms(image);
  look_up(image, {make_table(of[0]), make_table(of[1]), make_table(of[2])});
}

}  // namespace

void posterize(const Pixels& image, int bits) {
  const auto mask = static_cast<std::uint8_t>(0xff00 >> bits);
  for (std::uint8_t& value : image.rgb) value &= mask;
}

void solarize(const Pixels& image, double threshold) {
  for (std::uint8_t& value : image.rgb)
    value = static_cast<float>(value) < static_cast<float>(threshold)
                ? value
                : static_cast<std::uint8_t>(255 - value);
}

void autocontrast(const Pixels& image) {
  look_up_by_histogram(image, autocontrast_table);
}

void equalize(const Pixels& image) {
  look_up_by_histogram(image, equalize_table);
}

}  // namespace qtrain::data
