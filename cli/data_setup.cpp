#include "cli/data_setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <span>

#include "cli/augmentation.h"
#include "data/sets/imagenet.h"
#include "data/sets/open.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/ops/cast.h"
#include "engine/ops/rearrange.h"
#include "zoo/registry.h"

namespace qtrain::cli {
namespace {

constexpr std::int64_t demo_image_size = 64;
constexpr std::int64_t cifar_image_size = 32;

enum class Kind { demo, folder, cifar, tensors };

Kind kind_of(const std::string& spec) {
  if (spec == "demo") return Kind::demo;
  if (spec.starts_with("cifar10:") || spec.starts_with("cifar100:")) return Kind::cifar;
  return spec.starts_with("tensors:") ? Kind::tensors : Kind::folder;
}

// A set that was meant to be ImageNet and isn't whole trains without an error.
void announce_difference(const data::Dataset& dataset, data::Split split) {
  const std::string text = data::imagenet_difference(dataset, split);
  if (!text.empty()) std::cerr << "note: " << text << std::endl;
}

// Says once that the demo set is being made: it takes a while.
data::Progress announce_demo() {
  return [announced = false](std::size_t, std::size_t total) mutable {
    if (!announced) std::cerr << fmt::format("making the demo set once: {} JPEG files", total) << std::endl;
    announced = true;
  };
}

std::int64_t default_image_size(Kind kind, const data::Dataset& dataset, const std::string& model) {
  const data::Size size = dataset.image_size();
  if (size != data::Size{}) return std::max(size.height, size.width);
  const std::int64_t usual = zoo::find_model(model).image_size;
  return kind == Kind::demo ? std::min(usual, demo_image_size) : usual;
}

std::string default_augment(Kind kind) {
  switch (kind) {
    case Kind::cifar:
      return "cifar";
    case Kind::tensors:
      return "none";
    default:
      return "imagenet";
  }
}

std::string default_normalization(Kind kind, std::int64_t image_size) {
  const bool small = kind == Kind::tensors && image_size == cifar_image_size;
  return kind == Kind::cifar || small ? "cifar" : "imagenet";
}

Normalization normalization_of(const TrainOptions& o, Kind kind, const DataSource& source) {
  if (source.validation->content() == data::Content::floats) {
    if (o.normalize != "auto" || !o.mean.empty())
      throw ValueError({.where = "--normalize",
                        .what = "float images go into the network as they are",
                        .got = o.mean.empty() ? o.normalize : "--mean",
                        .expected = "auto",
                        .hint = "uint8 images can be normalized"});
    return {.name = "float", .mean = {}, .deviation = {}};
  }
  if (!o.mean.empty())
    return {.name = "own", .mean = {o.mean.begin(), o.mean.end()}, .deviation = {o.std.begin(), o.std.end()}};
  const std::string name =
      o.normalize == "auto" ? default_normalization(kind, source.image_size) : o.normalize;
  if (name == "raw") return {.name = name, .mean = {}, .deviation = {}};
  if (name == "unit") return {.name = name, .mean = {0, 0, 0}, .deviation = {1, 1, 1}};
  // Means and standard deviations over the training sets, as everybody uses them.
  if (name == "cifar")
    return {.name = name, .mean = {0.4914F, 0.4822F, 0.4465F}, .deviation = {0.2023F, 0.1994F, 0.2010F}};
  return {.name = name, .mean = {0.485F, 0.456F, 0.406F}, .deviation = {0.229F, 0.224F, 0.225F}};
}

data::LoaderOptions loader_options(const TrainOptions& o, const DataSource& source, Device device) {
  data::LoaderOptions loader;
  loader.batch_size = static_cast<std::size_t>(o.batch_size);
  loader.seed = static_cast<std::uint64_t>(o.seed);
  loader.workers = static_cast<int>(o.workers);
  loader.readers = static_cast<int>(o.readers);
  loader.shard = {static_cast<std::size_t>(o.rank), static_cast<std::size_t>(o.world_size)};
  loader.device = &backend(device);
  loader.prefetch = std::max<std::size_t>(4, 2 * static_cast<std::size_t>(o.workers));
  loader.bad_images = o.bad_images == "skip" ? data::BadImages::skip : data::BadImages::fail;
  set_geometry(loader.pipeline, o, source);
  loader.pipeline.decode = o.decode == "exact" ? data::DecodeMode::exact : data::DecodeMode::fast;
  return loader;
}

}  // namespace

DataSource open_data(const TrainOptions& options, Parts parts) {
  DataSource source;
  source.spec = options.data.empty() ? "demo" : options.data;
  const Kind kind = kind_of(source.spec);
  if (parts == Parts::both)
    source.train = data::open_dataset(source.spec, data::Split::train, announce_demo());
  source.validation = data::open_dataset(source.spec, data::Split::val, announce_demo());
  if (source.train) announce_difference(*source.train, data::Split::train);
  announce_difference(*source.validation, data::Split::val);
  source.image_size =
      options.image_size.value_or(default_image_size(kind, *source.validation, options.model));
  source.augment = options.augment == "auto" ? default_augment(kind) : options.augment;
  source.normalization = normalization_of(options, kind, source);
  if (options.precision == "bf16") source.normalization.dtype = DType::bf16;
  return source;
}

data::LoaderOptions training_loader(const TrainOptions& options, const DataSource& source, Device device) {
  data::LoaderOptions loader = loader_options(options, source, device);
  loader.shuffle = options.shuffle;
  loader.drop_last = options.drop_last;
  set_training_augmentation(loader, options, source);
  return loader;
}

data::LoaderOptions validation_loader(const TrainOptions& options, const DataSource& source, Device device) {
  data::LoaderOptions loader = loader_options(options, source, device);
  loader.shuffle = false;
  loader.pipeline.train = false;
  return loader;
}

void InputBuffer::load(const data::Batch& batch) {
  const Shape shape{batch.count, data::Batch::channels, batch.height, batch.width};
  const DType dtype = batch.floats.empty() ? DType::u8 : DType::f32;
  const bool mixed = !batch.partner_labels.empty();
  const auto found = std::ranges::find_if(places_, [&](const Place& place) {
    return place.images.shape() == shape && place.images.dtype() == dtype &&
           place.partner_labels.defined() == mixed;
  });
  loaded_ = static_cast<std::size_t>(found - places_.begin());
  if (found == places_.end()) {
    Place place{.images = Tensor::empty(shape, dtype, device_),
                .labels = Tensor::empty({batch.count}, DType::i64, device_)};
    if (mixed) {
      place.partner_labels = Tensor::empty({batch.count}, DType::i64, device_);
      place.lambda = Tensor::empty({1}, DType::f32, device_);
    }
    places_.push_back(std::move(place));
  }
  const Place& place = places_[loaded_];
  Backend& b = backend(device_);
  const auto copy = [&](const Tensor& to, const auto& from) {
    b.copy(b.stream(), to.raw(), from.data(), to.bytes(), CopyKind::host_to_device);
    to.bump_version();
  };
  // Both the loader and 4-D tensors keep N, H, W, C order.
  if (dtype == DType::u8)
    copy(place.images, batch.bytes);
  else
    copy(place.images, batch.floats);
  copy(place.labels, batch.labels);
  if (batch.partner_labels.empty()) return;
  copy(place.partner_labels, batch.partner_labels);
  copy(place.lambda, std::span(&batch.lambda, 1));
}

DeviceBatch InputBuffer::normalized(const Normalization& normalization) const {
  const Place& place = places_[loaded_];
  DeviceBatch result{.images = place.images,
                     .labels = place.labels,
                     .partner_labels = place.partner_labels,
                     .lambda = place.lambda,
                     .count = place.labels.numel()};
  if (place.images.dtype() == DType::u8)
    result.images = normalization.mean.empty()
                        ? images_to_float(place.images)
                        : normalize_images(place.images, normalization.mean, normalization.deviation);
  result.images = cast(result.images, normalization.dtype);
  return result;
}

DeviceBatch to_device(const data::Batch& batch, const Normalization& normalization, Device device) {
  InputBuffer buffer(device);
  buffer.load(batch);
  return buffer.normalized(normalization);
}

}  // namespace qtrain::cli
