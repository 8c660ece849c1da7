// One place of a batch, filled: the part of loading that does not know of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/transform.h"

namespace qtrain::data {

// Images in NHWC order, `count` of them; `floats` is filled when the dataset's images are float, else
// `bytes`.
struct Batch {
  static constexpr int channels = 3;
  int count = 0;
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> bytes;
  std::vector<float> floats;
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> indices;  // of the samples in the dataset
};

enum class BadImages {
  fail,  // an unreadable image is an error
  skip,  // another sample takes its place
};

struct BadImage {
  std::size_t index;
  std::string reason;  // with the file's name
};

class SampleReader {
 public:
  // ShapeError or ValueError where the dataset's images can't go through the pipeline.
  SampleReader(std::shared_ptr<const Dataset> dataset, const PipelineOptions& pipeline, std::uint64_t seed,
               BadImages policy);

  const Dataset& dataset() const { return *dataset_; }

  // Gives the batch room for `count` samples.
  void prepare(Batch& batch, std::size_t count) const;

  // Fills place `slot` with sample `index`, or with its substitute: a sample drawn by (seed, epoch, index),
  // while the augmentation stays that of `index`. Unreadable samples met on the way are appended to `bad`.
  // Different slots may be filled at once.
  void read(std::uint64_t epoch, std::size_t index, Batch& batch, std::size_t slot, Sample& scratch,
            std::vector<BadImage>& bad) const;

 private:
  void load_readable(std::uint64_t epoch, std::size_t& index, Sample& sample,
                     std::vector<BadImage>& bad) const;
  void write_pixels(std::uint64_t epoch, std::size_t index, const Sample& sample, Batch& batch,
                    std::size_t slot) const;

  std::shared_ptr<const Dataset> dataset_;
  Pipeline pipeline_;
  std::uint64_t seed_;
  BadImages policy_;
};

}  // namespace qtrain::data
