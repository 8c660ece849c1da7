// One place of a batch, filled: the part of loading that does not know of threads.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/augment/transform.h"
#include "data/codec/image_decoder.h"
#include "data/dataset.h"
#include "engine/backend/host_vector.h"

namespace qtrain::data {

// Images in NHWC order, `count` of them; `floats` is filled when the dataset's images are float, else
// `bytes`.
struct Batch {
  static constexpr int channels = 3;
  int count = 0;
  int height = 0;
  int width = 0;
  HostVector<std::uint8_t> bytes;
  HostVector<float> floats;
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> indices;  // of the samples in the dataset
  // Where batches are mixed (mix_batch.h): the labels of the images that these are mixed with, and what share
  // of itself each has kept.
  std::vector<std::int64_t> partner_labels;
  float lambda = 1;
};

enum class BadImages {
  fail,  // an unreadable image is an error
  skip,  // another sample takes its place
};

struct BadImage {
  std::size_t index;
  std::string reason;  // with the file's name
};
inline constexpr std::size_t max_listed_bad_images = 10;  // all are counted, the first ones described

// A sample as it came from the data set, or why it didn't.
struct Fetched {
  std::size_t index = 0;
  Record record;
  std::exception_ptr error;
};

// A decoded sample.
struct Sample {
  Image image;
  std::vector<float> values;  // Content::floats: these, in H, W, C order, instead of `image`
  std::int64_t label = 0;
};

// Throws FormatError or IoError, which name the file and the reason.
Sample load_sample(const Dataset& dataset, std::size_t index);

class SampleReader {
 public:
  // What a thread keeps from sample to sample, so that it allocates nothing for each.
  struct Scratch {
    ImageDecoder decoder;
    DecodedPart part;  // of images that aren't files
  };

  // ShapeError or ValueError where the dataset's images can't go through the pipeline.
  SampleReader(std::shared_ptr<const Dataset> dataset, const PipelineOptions& pipeline, std::uint64_t seed,
               BadImages policy);

  const Dataset& dataset() const { return *dataset_; }
  Scratch make_scratch() const { return {.decoder = ImageDecoder(pipeline_.options().decode), .part = {}}; }

  // Gives the batch room for `count` samples, in host memory of a backend that nobody reads any more.
  void prepare(Batch& batch, std::size_t count, Backend& memory) const;

  // The first step: the sample's bytes from wherever they lie. What it throws is kept for the second.
  void fetch(std::size_t index, Fetched& fetched) const;

  // The second: fills place `slot` with the sample, or with its substitute: a sample drawn by (seed, epoch,
  // index), while the augmentation stays that of the first one's index. Unreadable samples met on the way are
  // appended to `bad`. Different slots may be filled at once.
  void decode(std::uint64_t epoch, Fetched& fetched, Batch& batch, std::size_t slot, Scratch& scratch,
              std::vector<BadImage>& bad) const;

 private:
  void write(std::uint64_t epoch, std::size_t index, Fetched& fetched, Batch& batch, std::size_t slot,
             Scratch& scratch) const;
  void write_pixels(std::uint64_t epoch, std::size_t index, Record& record, std::span<std::uint8_t> out,
                    Scratch& scratch) const;

  std::shared_ptr<const Dataset> dataset_;
  Pipeline pipeline_;
  std::uint64_t seed_;
  BadImages policy_;
};

}  // namespace qtrain::data
