#include "data/augment/transform.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/augment/geometric.h"
#include "data/augment/ranges.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

// numpy's "reflect": -1 -> 1, size -> size-2.
int reflect(int i, int size) {
  if (i < 0) i = -i;
  return i < size ? i : 2 * (size - 1) - i;
}

}  // namespace

Box random_resized_crop_box(Size image, double scale_low, double scale_high, double ratio_low,
                            double ratio_high, RandomStream& random) {
  const double area = static_cast<double>(image.width) * image.height;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * random.uniform(scale_low, scale_high);
    const double ratio = std::exp(random.uniform(std::log(ratio_low), std::log(ratio_high)));
    const int width = round_even(std::sqrt(target * ratio));
    const int height = round_even(std::sqrt(target / ratio));
    if (width < 1 || height < 1 || width > image.width || height > image.height) continue;
    const int top = draw_below(random, image.height - height + 1);
    const int left = draw_below(random, image.width - width + 1);
    return {left, top, width, height};
  }
  Size box = image;
  const double ratio = static_cast<double>(image.width) / image.height;
  if (ratio < ratio_low) {
    box.height = std::clamp(round_even(image.width / ratio_low), 1, image.height);
  } else if (ratio > ratio_high) {
    box.width = std::clamp(round_even(image.height * ratio_high), 1, image.width);
  }
  return {(image.width - box.width) / 2, (image.height - box.height) / 2, box.width, box.height};
}

Size resize_shorter(Size image, int shorter) {
  const auto longer = [shorter](int long_side, int short_side) {
    return static_cast<int>(std::min<std::int64_t>(std::int64_t{shorter} * long_side / short_side, 1 << 30));
  };
  if (image.width <= image.height) return {shorter, longer(image.height, image.width)};
  return {longer(image.width, image.height), shorter};
}

Box center_crop_box(Size image, int size) {
  return {round_even((image.width - size) / 2.0), round_even((image.height - size) / 2.0), size, size};
}

void crop_padded(const Image& image, const Box& box, Padding padding, bool flip,
                 std::span<std::uint8_t> out) {
  std::uint8_t* to = out.data();
  const auto pixel_of = [&](int x, int y) {
    return image.rgb.data() + (static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) +
                               static_cast<std::size_t>(x)) *
                                  3;
  };
  for (int row = 0; row < box.height; ++row) {
    int y = box.top + row;
    const bool row_inside = y >= 0 && y < image.height;
    if (padding == Padding::reflect) y = reflect(y, image.height);
    for (int column = 0; column < box.width; ++column, to += 3) {
      int x = box.left + (flip ? box.width - 1 - column : column);
      if (padding == Padding::reflect) {
        x = reflect(x, image.width);
      } else if (!row_inside || x < 0 || x >= image.width) {
        std::memset(to, 0, 3);
        continue;
      }
      std::memcpy(to, pixel_of(x, y), 3);
    }
  }
}

const std::vector<std::string>& augment_names() {
  static const std::vector<std::string> names = {"imagenet", "cifar", "resize", "none"};
  return names;
}

Augment parse_augment(const std::string& name) {
  const std::vector<std::string>& names = augment_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    throw ValueError({.where = "augment",
                      .what = "unknown augmentation",
                      .got = "'" + name + "'",
                      .expected = fmt::format("one of {}", fmt::join(names, ", ")),
                      .hint = suggest(name, names)});
  }
  return static_cast<Augment>(found - names.begin());
}

Pipeline::Pipeline(const PipelineOptions& options) : options_(options), pixels_(options.pixels) {
  require_in_range(options.image_size >= 1 && options.image_size <= 8192, "image size", options.image_size,
                   "1 to 8192");
  require_in_range(options.crop_ratio > 0 && options.crop_ratio <= 1, "crop ratio", options.crop_ratio,
                   "above 0, at most 1");
  require_in_range(options.image_size / options.crop_ratio <= 65536, "crop ratio", options.crop_ratio,
                   "a resized side of at most 65536 pixels");
  require_in_range(options.scale_low > 0 && options.scale_low <= options.scale_high, "crop scale",
                   options.scale_low, "above 0, at most the upper bound");
  require_in_range(options.scale_high <= 1, "crop scale", options.scale_high, "at most 1");
  require_in_range(
      options.ratio_low > 0 && options.ratio_low <= options.ratio_high && std::isfinite(options.ratio_high),
      "crop aspect ratio", options.ratio_low, "above 0, at most the upper bound");
  require_in_range(options.flip_probability >= 0 && options.flip_probability <= 1, "flip probability",
                   options.flip_probability, "0 to 1");
  require_in_range(options.vertical_flip_probability >= 0 && options.vertical_flip_probability <= 1,
                   "vertical flip probability", options.vertical_flip_probability, "0 to 1");
  require_in_range(options.padding >= 0 && options.padding <= 8192, "padding", options.padding, "0 to 8192");
  require_in_range(options.padding_mode == Padding::zero || options.padding < options.image_size, "padding",
                   options.padding, "less than the image size when it reflects");
  if (options.train && options.augment == Augment::none && options.pixels.any())
    throw ValueError({.where = "augment none",
                      .what = "images that pass as they are can't be augmented",
                      .got = "an augmentation of pixels",
                      .expected = "none of them, or another augment"});
}

std::size_t Pipeline::bytes_per_image() const {
  return std::size_t{3} * static_cast<std::size_t>(options_.image_size) *
         static_cast<std::size_t>(options_.image_size);
}

bool Pipeline::passes_through() const {
  return options_.augment == Augment::none || (options_.augment == Augment::cifar && !options_.train);
}

void Pipeline::require_network_size(Size size) const {
  if (size == Size{options_.image_size, options_.image_size}) return;
  throw ShapeError({.where = "augment " + augment_names()[static_cast<std::size_t>(options_.augment)],
                    .what = "the image's size is not the network's",
                    .got = fmt::format("{} x {}", size.width, size.height),
                    .expected = fmt::format("{0} x {0}", options_.image_size),
                    .hint = "augment 'imagenet' and 'resize' resize images"});
}

double Geometry::shrink() const {
  if (!resizes) return 1;
  return std::min(static_cast<double>(crop.width) / full.width,
                  static_cast<double>(crop.height) / full.height);
}

Box Geometry::needed(Size image) const {
  if (!resizes) return {0, 0, image.width, image.height};
  return resample_reads({static_cast<double>(crop.left), static_cast<double>(crop.top),
                         static_cast<double>(crop.width), static_cast<double>(crop.height)},
                        full, window);
}

Geometry Pipeline::plan(Size image, RandomStream& random) const {
  const int side = options_.image_size;
  const Box result{0, 0, side, side};
  const auto flipped = [&](Geometry geometry) {
    geometry.flip = random.bernoulli(options_.flip_probability);
    const double vertical = options_.vertical_flip_probability;
    geometry.flip_rows = vertical > 0 && random.bernoulli(vertical);
    return geometry;
  };
  if (passes_through()) {
    require_network_size(image);
    return {.crop = result};
  }
  if (options_.augment == Augment::cifar) {
    require_network_size(image);
    const int top = draw_below(random, 2 * options_.padding + 1) - options_.padding;
    const int left = draw_below(random, 2 * options_.padding + 1) - options_.padding;
    return flipped({.crop = {left, top, side, side}});
  }
  if (options_.augment == Augment::imagenet && options_.train) {
    const Box box = random_resized_crop_box(image, options_.scale_low, options_.scale_high,
                                            options_.ratio_low, options_.ratio_high, random);
    return flipped({.crop = box, .resizes = true, .full = {side, side}, .window = result});
  }
  const Size full = resize_shorter(image, static_cast<int>(side / options_.crop_ratio));
  return {.crop = {0, 0, image.width, image.height},
          .resizes = true,
          .full = full,
          .window = center_crop_box(full, side)};
}

void Pipeline::render(const DecodedPart& part, const Geometry& geometry, RandomStream& random,
                      std::span<std::uint8_t> out) const {
  if (out.size() != bytes_per_image()) {
    throw ShapeError({.where = "pipeline",
                      .what = "wrong size of the output",
                      .got = fmt::format("{} bytes", out.size()),
                      .expected = fmt::format("{}", bytes_per_image())});
  }
  if (geometry.resizes)
    resample(part.pixels, part.place_of(geometry.crop), geometry.full, geometry.window, geometry.flip, out);
  else
    crop_padded(part.pixels, geometry.crop, options_.padding_mode, geometry.flip, out);
  const Pixels image{out, {options_.image_size, options_.image_size}};
  if (geometry.flip_rows) flip_rows(image);
  if (options_.train) pixels_.apply(image, random);
}

}  // namespace qtrain::data
