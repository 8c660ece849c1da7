#include "data/loader/sample_reader.h"

#include <algorithm>

#include "engine/core/error.h"
#include "engine/core/rng.h"

namespace qtrain::data {
namespace {

constexpr int max_replacements = 100;

bool holds_floats(const Dataset& dataset) {
  return dataset.content() == Content::floats;
}

}  // namespace

SampleReader::SampleReader(std::shared_ptr<const Dataset> dataset, const PipelineOptions& pipeline,
                           std::uint64_t seed, BadImages policy)
    : dataset_(std::move(dataset)), pipeline_(pipeline), seed_(seed), policy_(policy) {
  if (holds_floats(*dataset_) && pipeline.augment != Augment::none) {
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

void SampleReader::prepare(Batch& batch, std::size_t count, Backend& memory) const {
  const std::size_t values = count * pipeline_.bytes_per_image();
  batch.count = static_cast<int>(count);
  batch.height = pipeline_.options().image_size;
  batch.width = pipeline_.options().image_size;
  renew(batch.bytes, holds_floats(*dataset_) ? 0 : values, memory);
  renew(batch.floats, holds_floats(*dataset_) ? values : 0, memory);
  batch.labels.resize(count);
  batch.indices.resize(count);
  batch.partner_labels.clear();
  batch.partner_labels.reserve(count);  // mixing allocates nothing
  batch.lambda = 1;
}

void SampleReader::fetch(std::size_t index, Fetched& fetched) const {
  fetched.index = index;
  fetched.error = nullptr;
  try {
    dataset_->fetch(index, fetched.record);
  } catch (...) {
    fetched.error = std::current_exception();
  }
}

void SampleReader::decode(std::uint64_t epoch, Fetched& fetched, Batch& batch, std::size_t slot,
                          Scratch& scratch, std::vector<BadImage>& bad) const {
  const std::size_t index = fetched.index;
  RandomStream random(seed_, RandomPurpose::replace, epoch, index);
  for (int attempt = 0; attempt <= max_replacements; ++attempt) {
    const auto report = [&](const Error& error) {
      if (policy_ == BadImages::fail) throw;  // what is being handled
      bad.push_back({fetched.index, error.what()});
      fetch(random.below(dataset_->size()), fetched);
    };
    try {
      if (fetched.error) std::rethrow_exception(fetched.error);
      write(epoch, index, fetched, batch, slot, scratch);
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

void SampleReader::write(std::uint64_t epoch, std::size_t index, Fetched& fetched, Batch& batch,
                         std::size_t slot, Scratch& scratch) const {
  Record& record = fetched.record;
  const std::size_t values = pipeline_.bytes_per_image();
  if (holds_floats(*dataset_)) {
    std::copy(record.values.begin(), record.values.end(),
              batch.floats.begin() + static_cast<std::ptrdiff_t>(slot * values));
  } else {
    try {
      write_pixels(epoch, index, record, {batch.bytes.data() + slot * values, values}, scratch);
    } catch (const ShapeError& error) {
      throw ShapeError({.where = record.name, .what = error.what()});
    }
  }
  batch.labels[slot] = record.label;
  batch.indices[slot] = static_cast<std::int64_t>(fetched.index);
}

void SampleReader::write_pixels(std::uint64_t epoch, std::size_t index, Record& record,
                                std::span<std::uint8_t> out, Scratch& scratch) const {
  RandomStream random(seed_, RandomPurpose::augment, epoch, index);
  if (dataset_->content() == Content::pixels) {
    std::swap(record.image, scratch.part.pixels);
    const Geometry geometry = pipeline_.plan(scratch.part.pixels.size(), random);
    pipeline_.render(scratch.part, geometry, random, out);
    return;
  }
  const Size size = scratch.decoder.open(record.file, record.name);
  const Geometry geometry = pipeline_.plan(size, random);
  pipeline_.render(scratch.decoder.decode(geometry.needed(size), geometry.shrink()), geometry, random, out);
}

Sample load_sample(const Dataset& dataset, std::size_t index) {
  Record record;
  dataset.fetch(index, record);
  if (dataset.content() == Content::files) decode_image(record.file, record.name, record.image);
  return {.image = std::move(record.image), .values = std::move(record.values), .label = record.label};
}

}  // namespace qtrain::data
