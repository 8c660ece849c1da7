// Labelled images, as they lie on disk or in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"

namespace qtrain::data {

enum class Split { train, val };

// What a data set holds.
enum class Content {
  files,   // encoded images
  pixels,  // 8-bit RGB images
  floats   // float images, which go into the network as they are
};

// One sample, not decoded yet. Its memory is reused from sample to sample.
struct Record {
  std::int64_t label = 0;
  std::string name;  // what a person would call it: its path, or file and position

  // Content::files: the encoded image. It lies in `buffer`, or in memory of the data set that stays.
  std::span<const std::byte> file;
  std::vector<std::byte> buffer;

  Image image;                // Content::pixels
  std::vector<float> values;  // Content::floats: H, W, C order
};

class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual std::size_t size() const = 0;
  virtual const std::vector<std::string>& class_names() const = 0;
  int classes() const { return static_cast<int>(class_names().size()); }

  virtual Content content() const = 0;
  // The size of every image, or 0 x 0 where they differ.
  virtual Size image_size() const { return {}; }

  // Reads a sample; labels are 0 .. classes()-1. Thread-safe. Throws FormatError or IoError, which name the
  // file and the reason; name and label are set even then.
  virtual void fetch(std::size_t index, Record& record) const = 0;

  // What a person would call the sample.
  virtual std::string describe(std::size_t index) const = 0;

 protected:
  Dataset() = default;
  Dataset(const Dataset&) = default;
  Dataset& operator=(const Dataset&) = default;
};

}  // namespace qtrain::data
