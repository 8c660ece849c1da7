// What is known of ImageNet (ILSVRC 2012).
#pragma once

#include <string>

#include "data/dataset.h"

namespace qtrain::data {

// For a data set that looks like ImageNet, 1000 classes named like WordNet's ids (n01440764), of another size
// than ImageNet's 1,281,167 training and 50,000 validation images: a line that says so. Else "".
std::string imagenet_difference(const Dataset& dataset, Split split);

}  // namespace qtrain::data
