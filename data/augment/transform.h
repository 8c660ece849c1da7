// From a decoded image to the pixels that a network gets: torchvision's transforms on 8-bit pixels.
// Normalization happens later, on the device.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/augment/pixel_augmentation.h"
#include "data/augment/resample.h"
#include "data/codec/image_decoder.h"
#include "data/image.h"
#include "engine/core/rng.h"

namespace qtrain::data {

// torchvision.transforms.RandomResizedCrop.get_params: up to ten draws of an area (a share of the image
// between scale_low and scale_high) and of an aspect ratio (log-uniform), else the largest central box within
// the ratios.
Box random_resized_crop_box(Size image, double scale_low, double scale_high, double ratio_low,
                            double ratio_high, RandomStream& random);

// torchvision.transforms.Resize(shorter): the size after resizing the shorter side to `shorter`.
Size resize_shorter(Size image, int shorter);

// torchvision.transforms.CenterCrop(size) of an image not smaller than that.
Box center_crop_box(Size image, int size);

enum class Padding { zero, reflect };

// Copies `box`, which may reach beyond the image, to out (box.height x box.width x 3), mirrored when `flip`.
// Beyond the image there is black, or the image mirrored at its border pixels (numpy.pad mode "reflect"). A
// reflecting box reaches less than the image's own size beyond it.
void crop_padded(const Image& image, const Box& box, Padding padding, bool flip, std::span<std::uint8_t> out);

enum class Augment {
  imagenet,  // train: random resized crop, flip; evaluation: resize, centre crop
  cifar,     // train: random crop of the padded image, flip; evaluation: as it is
  resize,    // resize, centre crop in both
  none,      // as it is in both
};

const std::vector<std::string>& augment_names();
Augment parse_augment(const std::string& name);  // ValueError for an unknown name

struct PipelineOptions {
  int image_size = 224;  // the network's input is image_size x image_size
  bool train = true;
  Augment augment = Augment::imagenet;
  DecodeMode decode = DecodeMode::fast;
  double crop_ratio = 0.875;  // evaluation: resize the shorter side to floor(image_size / crop_ratio)
  double scale_low = 0.08;    // random resized crop: range of areas and of aspect ratios
  double scale_high = 1.0;
  double ratio_low = 3.0 / 4.0;
  double ratio_high = 4.0 / 3.0;
  double flip_probability = 0.5;         // imagenet, cifar: left and right change places
  double vertical_flip_probability = 0;  // top and bottom
  int padding = 4;                       // cifar: pixels on each side
  Padding padding_mode = Padding::zero;
  PixelOptions pixels{};  // training, all but `none`
};

// Which pixels of an image become which pixels of the result.
struct Geometry {
  Box crop;  // of the image
  // It is resized to `full`, of which `window` is kept; or copied, and what lies beyond the image padded.
  bool resizes = false;
  Size full;
  Box window;
  bool flip = false;       // left and right change places
  bool flip_rows = false;  // top and bottom do

  // Pixels of the image for one of the result, in the direction with fewer of them.
  double shrink() const;
  // The pixels of an image of that size that have influence.
  Box needed(Size image) const;
};

class Pipeline {
 public:
  explicit Pipeline(const PipelineOptions& options = {});  // ValueError for an option out of its range

  const PipelineOptions& options() const { return options_; }
  std::size_t bytes_per_image() const;

  // Whether images keep their pixels, so that they must have the network's size already.
  bool passes_through() const;

  // What is wanted of an image of that size. Draws from `random` in a fixed order: box, then flips. Throws
  // ShapeError when an image that has to have the network's size has another.
  Geometry plan(Size image, RandomStream& random) const;

  // Writes image_size x image_size x 3 bytes (HWC): the geometry, then everything that changes pixels where
  // they are, which draws from `random` too.
  void render(const DecodedPart& part, const Geometry& geometry, RandomStream& random,
              std::span<std::uint8_t> out) const;

  // ShapeError unless an image of that size can pass through.
  void require_network_size(Size size) const;

 private:
  PipelineOptions options_;
  PixelAugmentation pixels_;
};

}  // namespace qtrain::data
