#include "cli/augmentation.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cli/common_fields.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

const Range share{.low = 0, .high = 1};
const Range up_to_1{.low = 0, .high = 1, .low_open = true};
const Range above_0{.low = 0, .low_open = true};
constexpr double largest_alpha = 1000;

const TrainOptions defaults;

// A flag that acts on some data only.
struct Reach {
  const char* flag;
  bool given;
  std::vector<std::string> augments;  // --augment, as it was decided
};

void require_reach(const TrainOptions& o, const DataSource& source) {
  const bool floats = source.train->content() == data::Content::floats;
  const std::vector<std::string> cropped = {"imagenet", "cifar"};
  const std::vector<std::string> augmented = {"imagenet", "cifar", "resize"};
  for (const Reach& reach : {
           Reach{"--rrc-ratio", !o.rrc_ratio.empty(), {"imagenet"}},
           Reach{"--crop-padding", o.crop_padding != defaults.crop_padding, {"cifar"}},
           Reach{"--padding-mode", o.padding_mode != defaults.padding_mode, {"cifar"}},
           Reach{"--vflip", o.vflip > 0, cropped},
           Reach{"--rand-augment", !o.rand_augment.empty(), augmented},
           Reach{"--color-jitter", !o.color_jitter.empty(), augmented},
           Reach{"--lighting", o.lighting > 0, augmented},
           Reach{"--random-erasing", o.random_erasing > 0, augmented},
       }) {
    if (!reach.given || std::ranges::find(reach.augments, source.augment) != reach.augments.end()) continue;
    throw ValueError(
        {.where = reach.flag,
         .what =
             "acts on images that --augment " + fmt::format("{}", fmt::join(reach.augments, ", ")) + " makes",
         .got = "--augment " + source.augment + (floats ? ", with float images" : ""),
         .expected = floats ? "8-bit images" : fmt::format("--augment {}", fmt::join(reach.augments, " or ")),
         .hint = ""});
  }
  if (floats && (o.mixup > 0 || o.cutmix > 0))
    throw ValueError({.where = o.mixup > 0 ? "--mixup" : "--cutmix",
                      .what = "mixes 8-bit images",
                      .got = "float images",
                      .expected = "8-bit images",
                      .hint = ""});
}

data::ErasingOptions erasing_options(const TrainOptions& o, const Normalization& normalization) {
  data::ErasingOptions erasing;
  erasing.probability = o.random_erasing;
  if (o.random_erasing == 0 || o.random_erasing_mode == "black") return erasing;
  const bool noise = o.random_erasing_mode == "pixel";
  if (noise && normalization.mean.empty())
    throw ValueError({.where = "--random-erasing-mode",
                      .what = "noise has the mean and the deviation of the normalization",
                      .got = "pixel, --normalize raw",
                      .expected = "another normalization, or mean or black",
                      .hint = ""});
  erasing.mode = noise ? data::ErasingMode::noise : data::ErasingMode::level;
  for (std::size_t c = 0; c < normalization.mean.size(); ++c) {
    erasing.mean[c] = 255 * static_cast<double>(normalization.mean[c]);
    erasing.deviation[c] = 255 * static_cast<double>(normalization.deviation[c]);
  }
  return erasing;
}

}  // namespace

Fields augmentation_fields(TrainOptions& o) {
  return {
      {.name = "augment",
       .slot = &o.augment,
       .help = "crops and flips of the training images; what follows acts on them",
       .choices = or_auto(data::augment_names())},
      {.name = "rrc-scale",
       .slot = &o.rrc_scale,
       .help = "area of a random resized crop, from and to; none: 0.08,1, demo set 0.35,1",
       .range = up_to_1,
       .count = 2},
      {.name = "rrc-ratio",
       .slot = &o.rrc_ratio,
       .help = "its width / height, from and to; none: 0.75,1.3333",
       .range = above_0,
       .count = 2},
      {.name = "crop-ratio",
       .slot = &o.crop_ratio,
       .help = "evaluation: side of the centre crop / shorter side of the resized image",
       .range = up_to_1},
      {.name = "crop-padding",
       .slot = &o.crop_padding,
       .help = "cifar: pixels on each side",
       .range = {.low = 0, .high = 8192}},
      {.name = "padding-mode",
       .slot = &o.padding_mode,
       .help = "cifar: what is in them, black or the image mirrored",
       .choices = {"zero", "reflect"}},
      {.name = "flip", .slot = &o.flip, .help = "probability of a horizontal flip", .range = share},
      {.name = "vflip", .slot = &o.vflip, .help = "probability of a vertical flip", .range = share},
      {.name = "rand-augment",
       .slot = &o.rand_augment,
       .help = "RandAugment: operations and magnitude 0..30, such as 2,9; none: off",
       .range = {.low = 0, .high = 100},
       .count = 2},
      {.name = "color-jitter",
       .slot = &o.color_jitter,
       .help = "brightness, contrast, saturation, hue (up to 0.5), such as 0.4,0.4,0.4,0; none: off",
       .range = {.low = 0, .high = 1000},
       .count = 4},
      {.name = "lighting",
       .slot = &o.lighting,
       .help = "standard deviation of AlexNet's colour noise, usually 0.1; 0: off",
       .range = {.low = 0, .high = 1000}},
      {.name = "random-erasing",
       .slot = &o.random_erasing,
       .help = "probability that a rectangle is erased",
       .range = share},
      {.name = "random-erasing-mode",
       .slot = &o.random_erasing_mode,
       .help = "what it becomes: the normalization's mean, black, or noise",
       .choices = {"mean", "black", "pixel"}},
      {.name = "mixup",
       .slot = &o.mixup,
       .help = "Mixup of whole batches: alpha; 0: off",
       .range = {.low = 0, .high = largest_alpha}},
      {.name = "cutmix",
       .slot = &o.cutmix,
       .help = "CutMix of whole batches: alpha; 0: off",
       .range = {.low = 0, .high = largest_alpha}},
      {.name = "mix-prob", .slot = &o.mix_prob, .help = "probability that a batch is mixed", .range = share},
      {.name = "mix-switch-prob",
       .slot = &o.mix_switch_prob,
       .help = "probability of CutMix where both are on",
       .range = share},
  };
}

void validate_augmentation(const TrainOptions& o) {
  const auto require_order = [](const char* flag, const std::vector<double>& range) {
    if (range.empty() || range[0] <= range[1]) return;
    throw ValueError({.where = flag,
                      .what = "the range is upside down",
                      .got = fmt::format("{}", fmt::join(range, ",")),
                      .expected = "smaller,larger",
                      .hint = ""});
  };
  require_order("--rrc-scale", o.rrc_scale);
  require_order("--rrc-ratio", o.rrc_ratio);
  const auto require_below = [](const char* flag, const char* what, const auto& list, std::size_t place,
                                const auto& most) {
    if (list.empty() || list[place] <= most) return;
    throw ValueError({.where = flag,
                      .what = what,
                      .got = fmt::format("{}", list[place]),
                      .expected = fmt::format("0..{}", most),
                      .hint = ""});
  };
  require_below("--color-jitter", "the hue turns by at most half a circle", o.color_jitter, 3, 0.5);
  require_below("--rand-augment", "magnitude out of range", o.rand_augment, 1,
                std::int64_t{data::RandAugment::largest_magnitude});
  const auto require_use = [](const char* flag, bool changed, bool used, const char* of) {
    if (!changed || used) return;
    throw ValueError({.where = flag,
                      .what = "changes nothing without " + std::string(of),
                      .got = "",
                      .expected = std::string(of) + " as well",
                      .hint = ""});
  };
  require_use("--random-erasing-mode", o.random_erasing_mode != defaults.random_erasing_mode,
              o.random_erasing > 0, "--random-erasing");
  require_use("--mix-prob", o.mix_prob != defaults.mix_prob, o.mixup > 0 || o.cutmix > 0,
              "--mixup or --cutmix");
  require_use("--mix-switch-prob", o.mix_switch_prob != defaults.mix_switch_prob, o.mixup > 0 && o.cutmix > 0,
              "--mixup and --cutmix");
}

void set_geometry(data::PipelineOptions& pipeline, const TrainOptions& o, const DataSource& source) {
  pipeline.image_size = static_cast<int>(source.image_size);
  pipeline.augment = data::parse_augment(source.augment);
  // A small part of a demo picture may not show its pattern.
  constexpr double demo_scale_low = 0.35;
  if (!o.rrc_scale.empty()) {
    pipeline.scale_low = o.rrc_scale[0];
    pipeline.scale_high = o.rrc_scale[1];
  } else if (source.spec == "demo") {
    pipeline.scale_low = demo_scale_low;
  }
  if (!o.rrc_ratio.empty()) {
    pipeline.ratio_low = o.rrc_ratio[0];
    pipeline.ratio_high = o.rrc_ratio[1];
  }
  pipeline.crop_ratio = o.crop_ratio;
  pipeline.padding = static_cast<int>(o.crop_padding);
  pipeline.padding_mode = o.padding_mode == "reflect" ? data::Padding::reflect : data::Padding::zero;
  pipeline.flip_probability = o.flip;
  pipeline.vertical_flip_probability = o.vflip;
}

void set_training_augmentation(data::LoaderOptions& loader, const TrainOptions& o, const DataSource& source) {
  require_reach(o, source);
  data::PixelOptions& pixels = loader.pipeline.pixels;
  if (!o.rand_augment.empty())
    pixels.rand_augment = {.operations = static_cast<int>(o.rand_augment[0]),
                           .magnitude = static_cast<int>(o.rand_augment[1])};
  if (const auto& jitter = o.color_jitter; !jitter.empty())
    pixels.color_jitter = {
        .brightness = jitter[0], .contrast = jitter[1], .saturation = jitter[2], .hue = jitter[3]};
  pixels.lighting = o.lighting;
  pixels.erasing = erasing_options(o, source.normalization);
  loader.mix = {.mixup_alpha = o.mixup,
                .cutmix_alpha = o.cutmix,
                .probability = o.mix_prob,
                .switch_probability = o.mix_switch_prob};
}

}  // namespace qtrain::cli
