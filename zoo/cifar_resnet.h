// ResNet-20, 32, 44, 56 and 110 for 32x32 images (He et al. 2016, section 4.2), with projection shortcuts (a
// 1x1 convolution and a batch norm) where stride or width changes.
#pragma once

#include "zoo/registry.h"

namespace qtrain::zoo {

std::vector<ModelInfo> cifar_resnet_models();

}  // namespace qtrain::zoo
