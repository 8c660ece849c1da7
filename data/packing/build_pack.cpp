#include "data/packing/build_pack.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "data/augment/transform.h"
#include "data/codec/decode.h"
#include "data/in_order.h"
#include "data/sets/pack.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

constexpr std::size_t waiting_for_each_worker = 8;

// Bytes of a name up to its last part: behind folders, or behind a file that holds others.
std::size_t folders_bytes(std::string_view name) {
  const std::size_t slash = name.rfind('/') + 1;  // 0 without one
  const std::size_t colon = name.rfind(": ");
  return colon == std::string_view::npos ? slash : std::max(slash, colon + 2);
}

// Both splits as one row of images, the order in which they are packed.
class Source {
 public:
  Source(const Dataset& train, const Dataset& val) : train_(train), val_(val) {
    if (train.content() != Content::files || val.content() != Content::files) {
      throw ValueError({.where = "pack",
                        .what = "the data set doesn't consist of image files",
                        .got = train.describe(0),
                        .expected = "JPEG, PNG, ... files",
                        .hint = "pixels and tensors are fast as they are"});
    }
    if (train.class_names() != val.class_names()) {
      throw ValueError({.where = "pack", .what = "training and validation data have different classes"});
    }
    const std::string first = describe(0);
    common_ = folders_bytes(first);
    for (std::size_t i = 1; i < size(); ++i) {
      const std::string name = describe(i);
      const auto end = first.begin() + static_cast<std::ptrdiff_t>(std::min(common_, name.size()));
      const auto same = std::mismatch(first.begin(), end, name.begin()).first;
      if (same != first.begin() + static_cast<std::ptrdiff_t>(common_))
        common_ = folders_bytes({first.begin(), same});
    }
  }

  std::size_t size() const { return train_.size() + val_.size(); }
  Split split(std::size_t i) const { return i < train_.size() ? Split::train : Split::val; }
  void fetch(std::size_t i, Record& record) const { part(i).fetch(place(i), record); }
  const std::vector<std::string>& classes() const { return train_.class_names(); }

  std::string short_name(std::size_t i) const { return describe(i).substr(common_); }

 private:
  const Dataset& part(std::size_t i) const { return split(i) == Split::train ? train_ : val_; }
  std::size_t place(std::size_t i) const { return i < train_.size() ? i : i - train_.size(); }
  std::string describe(std::size_t i) const { return part(i).describe(place(i)); }

  const Dataset& train_;
  const Dataset& val_;
  std::size_t common_ = 0;  // bytes of folders in front of all names
};

// What a worker made of an image.
struct Packed {
  Record record;
  std::vector<std::byte> encoded;  // a resized image; empty: the file is taken as it is
  std::string bad;                 // why it can't be read

  std::span<const std::byte> file() const { return encoded.empty() ? record.file : encoded; }
};

// A worker's memory.
struct Scratch {
  Image image;
  Image resized;
};

void pack_image(const Source& source, std::size_t index, const PackSettings& settings, Scratch& scratch,
                Packed& packed) {
  packed.encoded.clear();
  packed.bad.clear();
  source.fetch(index, packed.record);
  decode_image(packed.record.file, packed.record.name, scratch.image);
  const Size size = scratch.image.size();
  if (settings.shorter_side == 0 || std::min(size.width, size.height) <= settings.shorter_side) return;
  const Size full = resize_shorter(size, settings.shorter_side);
  Image& resized = scratch.resized;
  resized.width = full.width;
  resized.height = full.height;
  resized.rgb.resize(std::size_t{3} * static_cast<std::size_t>(full.width) *
                     static_cast<std::size_t>(full.height));
  const RealBox all{0, 0, static_cast<double>(size.width), static_cast<double>(size.height)};
  resample(scratch.image, all, full, {0, 0, full.width, full.height}, false, resized.rgb);
  packed.encoded = encode_jpeg(resized, settings.quality);
}

}  // namespace

std::optional<PackSummary> build_pack(const Dataset& train, const Dataset& val,
                                      const std::filesystem::path& path, const PackSettings& settings,
                                      const Progress& progress, const std::function<bool()>& stop) {
  const Source source(train, val);
  remove_abandoned_temporaries(path);
  PackWriter writer(path);
  PackSummary summary;
  const auto make = [&](std::size_t index, Scratch& scratch, Packed& packed) {
    const auto report = [&](const Error& error) {
      if (settings.bad_images == BadImages::fail) throw;  // what is being handled
      packed.bad = error.what();
    };
    try {
      pack_image(source, index, settings, scratch, packed);
    } catch (const FormatError& error) {
      report(error);
    } catch (const IoError& error) {
      report(error);
    }
  };
  const auto use = [&](std::size_t index, const Packed& packed) {
    if (packed.bad.empty()) {
      writer.append(source.split(index), packed.record.label, source.short_name(index), packed.file());
      ++(source.split(index) == Split::train ? summary.train : summary.val);
      summary.resized += packed.encoded.empty() ? 0 : 1;
      summary.source_bytes += packed.record.file.size();
    } else if (++summary.bad_count <= max_listed_bad_images) {
      summary.bad.push_back({index, packed.bad});
    }
    if (progress) progress(index + 1, source.size());
    return !stop || !stop();
  };
  make_in_order<Packed, Scratch>(source.size(), settings.workers,
                                 waiting_for_each_worker * static_cast<std::size_t>(settings.workers), make,
                                 use);
  if (stop && stop()) return std::nullopt;
  if (summary.train == 0 || summary.val == 0) {
    throw FormatError({.where = summary.bad.empty() ? "pack" : summary.bad.front().reason,
                       .what = "no readable image in a split"});
  }
  writer.finish(source.classes());
  summary.pack_bytes = writer.bytes();
  return summary;
}

}  // namespace qtrain::data
