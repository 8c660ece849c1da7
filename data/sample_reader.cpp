#include "data/sample_reader.h"

#include <algorithm>

#include "engine/core/error.h"
#include "engine/core/rng.h"

namespace qtrain::data {
namespace {

constexpr int max_replacements = 100;

}  // namespace

SampleReader::SampleReader(std::shared_ptr<const Dataset> dataset, const PipelineOptions& pipeline,
                           std::uint64_t seed, BadImages policy)
    : dataset_(std::move(dataset)), pipeline_(pipeline), seed_(seed), policy_(policy) {
  if (dataset_->has_float_images() && pipeline.augment != Augment::none) {
    throw ValueError({.where = "data",
                      .what = "float32 images can't be augmented",
                      .got = "augment " + augment_names()[static_cast<std::size_t>(pipeline.augment)],
                      .expected = "augment none",
                      .hint = "uint8 images can be augmented"});
  }
  const bool fixed_size = dataset_->image_size() != Size{};
  if (fixed_size && (pipeline_.passes_through() || pipeline.augment == Augment::cifar)) {
    pipeline_.require_network_size(dataset_->image_size());
  }
}

void SampleReader::prepare(Batch& batch, std::size_t count) const {
  const std::size_t values = count * pipeline_.bytes_per_image();
  batch.count = static_cast<int>(count);
  batch.height = pipeline_.options().image_size;
  batch.width = pipeline_.options().image_size;
  batch.bytes.resize(dataset_->has_float_images() ? 0 : values);
  batch.floats.resize(dataset_->has_float_images() ? values : 0);
  batch.labels.resize(count);
  batch.indices.resize(count);
}

void SampleReader::read(std::uint64_t epoch, std::size_t index, Batch& batch, std::size_t slot,
                        Sample& scratch, std::vector<BadImage>& bad) const {
  std::size_t loaded = index;
  load_readable(epoch, loaded, scratch, bad);
  try {
    write_pixels(epoch, index, scratch, batch, slot);
  } catch (const ShapeError& error) {
    throw ShapeError({.where = dataset_->describe(loaded), .what = error.what()});
  }
  batch.labels[slot] = scratch.label;
  batch.indices[slot] = static_cast<std::int64_t>(loaded);
}

void SampleReader::load_readable(std::uint64_t epoch, std::size_t& index, Sample& sample,
                                 std::vector<BadImage>& bad) const {
  RandomStream random(seed_, RandomPurpose::replace, epoch, index);
  for (int attempt = 0; attempt <= max_replacements; ++attempt) {
    const auto report = [&](const Error& error) {
      if (policy_ == BadImages::fail) throw;  // what load threw
      bad.push_back({index, error.what()});
      index = random.below(dataset_->size());
    };
    try {
      dataset_->load(index, sample);
      return;
    } catch (const FormatError& error) {
      report(error);
    } catch (const IoError& error) {
      report(error);
    }
  }
  throw FormatError({.where = bad.back().reason,
                     .what = "no readable sample to take the place of an unreadable one",
                     .got = std::to_string(max_replacements) + " unreadable ones in turn"});
}

void SampleReader::write_pixels(std::uint64_t epoch, std::size_t index, const Sample& sample, Batch& batch,
                                std::size_t slot) const {
  const std::size_t values = pipeline_.bytes_per_image();
  if (dataset_->has_float_images()) {
    std::copy(sample.values.begin(), sample.values.end(),
              batch.floats.begin() + static_cast<std::ptrdiff_t>(slot * values));
    return;
  }
  RandomStream random(seed_, RandomPurpose::augment, epoch, index);
  pipeline_.apply(sample.image, random, {batch.bytes.data() + slot * values, values});
}

}  // namespace qtrain::data
