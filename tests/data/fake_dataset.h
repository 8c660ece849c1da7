// What the loader's tests share: data sets in memory, and whole epochs of a loader.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "data/loader/loader.h"
#include "engine/core/error.h"
#include "tests/data/support.h"

namespace qtrain::data {

// Images of varying size whose pixels tell their index; chosen ones can't be read.
class FakeDataset : public Dataset {
 public:
  explicit FakeDataset(std::size_t size, std::set<std::size_t> broken = {}, int side = 0)
      : size_(size), broken_(std::move(broken)), side_(side) {}

  std::size_t size() const override { return size_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Content content() const override { return Content::pixels; }
  Size image_size() const override { return {side_, side_}; }
  void fetch(std::size_t index, Record& sample) const override {
    ++loads;
    sample.name = describe(index);
    if (broken_.contains(index)) throw FormatError({.where = describe(index), .what = "broken on purpose"});
    if (index % 7 == 3) std::this_thread::yield();
    const int width = side_ ? side_ : 20 + static_cast<int>(index % 9);
    const int height = side_ ? side_ : 18 + static_cast<int>(index % 5);
    sample.image = noise_image(width, height, index);
    sample.label = static_cast<std::int64_t>(index % 3);
  }
  std::string describe(std::size_t index) const override { return "fake/" + std::to_string(index); }

  mutable std::atomic<std::size_t> loads{0};

 private:
  std::size_t size_;
  std::set<std::size_t> broken_;
  int side_;
  std::vector<std::string> names_ = {"a", "b", "c"};
};

inline LoaderOptions small_options(int workers) {
  LoaderOptions options;
  options.batch_size = 16;
  options.seed = 9;
  options.workers = workers;
  options.pipeline.image_size = 12;
  return options;
}

struct Epoch {
  std::vector<std::vector<std::uint8_t>> bytes;
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> indices;
  friend bool operator==(const Epoch&, const Epoch&) = default;
};

inline Epoch drain(Loader& loader) {
  Epoch epoch;
  Batch batch;
  while (loader.next(batch)) {
    EXPECT_EQ(batch.bytes.size(), static_cast<std::size_t>(batch.count * batch.height * batch.width * 3));
    EXPECT_EQ(batch.labels.size(), static_cast<std::size_t>(batch.count));
    epoch.bytes.emplace_back(batch.bytes.begin(), batch.bytes.end());
    epoch.labels.insert(epoch.labels.end(), batch.labels.begin(), batch.labels.end());
    epoch.indices.insert(epoch.indices.end(), batch.indices.begin(), batch.indices.end());
  }
  return epoch;
}

inline Epoch run_epoch(const std::shared_ptr<const Dataset>& dataset, const LoaderOptions& options,
                       std::uint64_t epoch) {
  Loader loader(dataset, options);
  loader.start_epoch(epoch);
  return drain(loader);
}

}  // namespace qtrain::data
