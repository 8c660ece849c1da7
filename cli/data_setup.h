// The data of a run: which images, of which size, augmented and normalized how; and the way of a batch from
// the loader to the device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/train_options.h"
#include "data/loader/loader.h"
#include "engine/core/tensor.h"

namespace qtrain::cli {

// What happens to pixels on their way into the network.
struct Normalization {
  std::string
      name;  // imagenet, cifar, raw, unit; own: --mean and --std; float: float images, taken as they are
  std::vector<float> mean;
  std::vector<float> deviation;
  DType dtype = DType::f32;  // of the network's input, which every layer's output follows
};

// A data set with everything that `auto` left open decided.
struct DataSource {
  std::string spec;  // what open_dataset takes
  std::shared_ptr<const data::Dataset> train;
  std::shared_ptr<const data::Dataset> validation;
  std::int64_t image_size = 0;
  std::string augment;
  Normalization normalization;
};

// Which parts of a data set to open: an evaluation needs no training images.
enum class Parts { both, validation };

// Opens the data of --data; the demo set is made if it isn't there yet, with a line on standard error; so
// does a set that looks like ImageNet and has another size.
// Errors of open_dataset, and ValueError for settings that don't suit the data.
DataSource open_data(const TrainOptions& options, Parts parts = Parts::both);

// `device`: where the batches will go.
data::LoaderOptions training_loader(const TrainOptions& options, const DataSource& source, Device device);
// In order, whole, resized and cropped as for evaluation.
data::LoaderOptions validation_loader(const TrainOptions& options, const DataSource& source, Device device);

struct DeviceBatch {
  Tensor images;  // [N, 3, H, W], normalized
  Tensor labels;  // i64 [N]
  // Of batches that are mixed (data/loader/mix_batch.h): i64 [N], f32 [1].
  Tensor partner_labels = {};
  Tensor lambda = {};
  std::int64_t count = 0;
};

// Where batches arrive on the device, as the loader made them. Batches of one size find the same tensors, so
// that what is done with them can be recorded.
class InputBuffer {
 public:
  explicit InputBuffer(Device device) : device_(device) {}

  void load(const data::Batch& batch);
  // Of the batch that was loaded last; float images are the buffer itself.
  DeviceBatch normalized(const Normalization& normalization) const;
  const Shape& shape() const { return places_[loaded_].images.shape(); }

 private:
  struct Place {
    Tensor images;  // u8 or f32
    Tensor labels;
    Tensor partner_labels = {};  // with lambda: where batches are mixed
    Tensor lambda = {};
  };
  Device device_;
  std::vector<Place> places_;  // one a size: most batches, and an epoch's smaller last one
  std::size_t loaded_ = 0;
};

DeviceBatch to_device(const data::Batch& batch, const Normalization& normalization, Device device);

}  // namespace qtrain::cli
