// The models that can be made by name.
#pragma once

#include <functional>

#include "layers/module.h"

namespace qtrain::zoo {

struct ModelOptions {
  std::int64_t num_classes = 0;  // 0: the model's default
  std::int64_t in_channels = 3;
  // Residual blocks start as their shortcut: the last gain of each is 0 (Goyal et al. 2017).
  bool zero_init_residual = false;
  // Off: no ReLU anywhere, for activations of one bit: behind a ReLU all signs are +.
  bool relu = true;
  std::uint64_t seed = 0;  // of the initial weights
  bool initialize = true;  // false: weights stay 0, for callers that load them anyway
};

struct ModelInfo {
  std::string name;
  std::string description;
  std::int64_t image_size = 224;  // the side of the square images it is usually trained on; others work
  std::int64_t num_classes = 1000;
  std::function<std::shared_ptr<Module>(const ModelOptions&)> make;  // options with all defaults filled in
};

// All models in the order to list them.
const std::vector<ModelInfo>& models();
// ValueError with the nearest name if there is none.
const ModelInfo& find_model(std::string_view name);
// A model, with fresh weights unless told otherwise. ValueError for an unknown name or sizes below 1.
std::shared_ptr<Module> make_model(std::string_view name, const ModelOptions& options = {});

}  // namespace qtrain::zoo
