// Loss and accuracy of a network over a data set.
#pragma once

#include <functional>
#include <optional>

#include "cli/data_setup.h"
#include "cli/metrics.h"
#include "layers/module.h"

namespace qtrain::cli {

// Called after each batch (from 1); false stops the evaluation.
using EvaluationProgress = std::function<bool(std::int64_t batch)>;

struct EvaluationResult {
  Validation means;
  std::int64_t images = 0;
};

// One pass over the loader's data in evaluation mode; the network goes back to the mode it was in. Samples
// that could not be read (--bad-images skip) are left out rather than replaced. top-5 of fewer than 5 classes
// is 1. Nothing if it was stopped.
std::optional<EvaluationResult> evaluate(Module& network, data::Loader& loader,
                                         const Normalization& normalization, Device device,
                                         const EvaluationProgress& progress = {});

}  // namespace qtrain::cli
