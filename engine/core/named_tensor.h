// A tensor and the name by which files and messages know it ("layer1.0.conv1.weight").
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/core/tensor.h"

namespace qtrain {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

using NamedTensors = std::vector<NamedTensor>;

// What a file holds, as the list that modules and optimizers load.
inline NamedTensors to_named_tensors(const std::map<std::string, Tensor>& tensors) {
  NamedTensors list;
  list.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) list.push_back({name, tensor});
  return list;
}

}  // namespace qtrain
