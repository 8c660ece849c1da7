#include "data/augment/mix.h"

#include <algorithm>
#include <cmath>

#include "data/augment/beta.h"
#include "data/augment/ranges.h"

namespace qtrain::data {
namespace {

// Both become lambda * self + (1 - lambda) * other.
void blend_pair(std::uint8_t* first, std::uint8_t* second, std::size_t bytes, double lambda) {
  constexpr int weight_bits = 15;  // products of weights and values fit instructions on 16-bit numbers
  constexpr int one = 1 << weight_bits;
  const auto own =
      static_cast<std::int16_t>(std::clamp(static_cast<int>(std::lround(lambda * one)), 1, one - 1));
  const auto others = static_cast<std::int16_t>(one - own);
  for (std::size_t i = 0; i < bytes; ++i) {
    const auto a = static_cast<std::int16_t>(first[i]);
    const auto b = static_cast<std::int16_t>(second[i]);
    first[i] = static_cast<std::uint8_t>((a * own + b * others + one / 2) >> weight_bits);
    second[i] = static_cast<std::uint8_t>((b * own + a * others + one / 2) >> weight_bits);
  }
}

void swap_boxes(const Pixels& first, const Pixels& second, const Box& box) {
  const std::size_t begin = std::size_t{3} * static_cast<std::size_t>(box.left);
  const std::size_t bytes = std::size_t{3} * static_cast<std::size_t>(box.width);
  for (int y = box.top; y < box.top + box.height; ++y) {
    const auto row = static_cast<std::size_t>(y);
    std::swap_ranges(first.row(row) + begin, first.row(row) + begin + bytes, second.row(row) + begin);
  }
}

// timm's rand_bbox: a box about a centre anywhere in the image, clipped.
Box cut_box(Size image, double lambda, RandomStream& random) {
  const double share = std::sqrt(1 - lambda);
  const int height = static_cast<int>(image.height * share);
  const int width = static_cast<int>(image.width * share);
  const int row = draw_below(random, image.height);
  const int column = draw_below(random, image.width);
  const int top = std::max(row - height / 2, 0);
  const int left = std::max(column - width / 2, 0);
  return {left, top, std::min(column + (width + 1) / 2, image.width) - left,
          std::min(row + (height + 1) / 2, image.height) - top};
}

}  // namespace

void MixOptions::check() const {
  require_in_range(mixup_alpha >= 0 && mixup_alpha <= 1e6, "mixup alpha", mixup_alpha, "0 to 1e6");
  require_in_range(cutmix_alpha >= 0 && cutmix_alpha <= 1e6, "cutmix alpha", cutmix_alpha, "0 to 1e6");
  require_in_range(probability >= 0 && probability <= 1, "mixing probability", probability, "0 to 1");
  require_in_range(switch_probability >= 0 && switch_probability <= 1, "probability of cutmix",
                   switch_probability, "0 to 1");
}

Mixing draw_mixing(const MixOptions& options, Size image, RandomStream& random) {
  Mixing mixing;
  if (!options.is_on() || !random.bernoulli(options.probability)) return mixing;
  const bool both = options.mixup_alpha > 0 && options.cutmix_alpha > 0;
  mixing.cuts = both ? random.bernoulli(options.switch_probability) : options.cutmix_alpha > 0;
  const double alpha = mixing.cuts ? options.cutmix_alpha : options.mixup_alpha;
  mixing.lambda = draw_beta(random, alpha, alpha);
  if (!mixing.cuts) return mixing;
  mixing.box = cut_box(image, mixing.lambda, random);
  const double area = static_cast<double>(image.width) * image.height;
  mixing.lambda = 1 - static_cast<double>(mixing.box.width) * mixing.box.height / area;
  return mixing;
}

void mix_images(const Mixing& mixing, std::span<std::uint8_t> images, std::size_t count, Size image) {
  if (mixing.lambda == 1) return;
  const std::size_t bytes = images.size() / std::max<std::size_t>(count, 1);
  for (std::size_t i = 0; i < count / 2; ++i) {
    const Pixels first{images.subspan(i * bytes, bytes), image};
    const Pixels second{images.subspan((count - 1 - i) * bytes, bytes), image};
    if (mixing.cuts)
      swap_boxes(first, second, mixing.box);
    else
      blend_pair(first.rgb.data(), second.rgb.data(), bytes, mixing.lambda);
  }
}

}  // namespace qtrain::data
