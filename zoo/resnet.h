// ResNet-18, 34, 50 and 101 for ImageNet-sized images (He et al. 2016), as torchvision defines and names
// them.
#pragma once

#include "zoo/registry.h"

namespace qtrain::zoo {

std::vector<ModelInfo> resnet_models();

}  // namespace qtrain::zoo
