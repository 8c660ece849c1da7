// How data sets are named on the command line.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/sets/progress.h"

namespace qtrain::data {

// A line of help for each form that open_dataset takes.
struct DatasetKind {
  std::string form;
  std::string help;
};
const std::vector<DatasetKind>& dataset_kinds();

// `progress` is called while the demo set is being made. `spec` is PATH (an ImageFolder, a folder of
// tar archives or a pack), pack:FILE, tar:DIR_OR_PATTERN, cifar10:DIR, cifar100:DIR, tensors:FILE.safetensors
// or demo. Throws ValueError for an unknown kind, IoError and FormatError for files that are missing or break
// their rules.
std::shared_ptr<const Dataset> open_dataset(const std::string& spec, Split split,
                                            const Progress& progress = {});

}  // namespace qtrain::data
