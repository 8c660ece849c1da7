// Labelled images, and how they are named on the command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/image.h"

namespace qtrain::data {

enum class Split { train, val };

// One labelled image. `image` holds it unless the dataset's images are float: then `values` does (HWC).
struct Sample {
  Image image;
  std::vector<float> values;
  std::int64_t label = 0;
};

class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual std::size_t size() const = 0;
  virtual const std::vector<std::string>& class_names() const = 0;
  int classes() const { return static_cast<int>(class_names().size()); }

  // The size of every image, or 0 x 0 where they differ.
  virtual Size image_size() const { return {}; }
  virtual bool has_float_images() const { return false; }

  // Reads a sample into `sample`, whose memory is reused; labels are 0 .. classes()-1. Thread-safe. Throws
  // FormatError or IoError, which name the file and the reason, for an image that can't be read.
  virtual void load(std::size_t index, Sample& sample) const = 0;
  Sample load(std::size_t index) const;

  // What a person would call the sample: its path, or file and position.
  virtual std::string describe(std::size_t index) const = 0;

 protected:
  Dataset() = default;
  Dataset(const Dataset&) = default;
  Dataset& operator=(const Dataset&) = default;
};

// A line of help for each form that open_dataset takes.
struct DatasetKind {
  std::string form;
  std::string help;
};
const std::vector<DatasetKind>& dataset_kinds();

// Called while the demo set is being made, from one thread at a time.
using Progress = std::function<void(std::size_t done, std::size_t total)>;

// `spec` is PATH (an ImageFolder), cifar10:DIR, cifar100:DIR, tensors:FILE.safetensors or demo. Throws
// ValueError for an unknown kind, IoError and FormatError for files that are missing or break their rules.
std::shared_ptr<const Dataset> open_dataset(const std::string& spec, Split split,
                                            const Progress& progress = {});

}  // namespace qtrain::data
