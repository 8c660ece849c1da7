// The network of a run: made by the zoo, given its initial weights, wrapped by quant/.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/train_options.h"
#include "layers/module.h"
#include "quant/wrap.h"

namespace qtrain::cli {

struct BuiltModel {
  std::shared_ptr<Module> network;            // on the CPU, in training mode
  std::vector<std::string> quantized_layers;  // their paths
  std::optional<LoadReport> init;             // what --init found; unset without it
};

// --bits, --quant, --set, --first-layer, ... as quant/ takes them. ValueError, with the nearest name, for
// options that no quantizer of the run has.
quant::WrapOptions wrap_options(const TrainOptions& options);

// Adds to --set what the quantizer's from_scratch options ask for and the user left open, if the run starts
// from random weights. Called once for a new run: its saved settings then say all.
void add_from_scratch_options(TrainOptions& options);

// Loads the plugins that aren't loaded yet.
void load_plugins(const std::vector<std::string>& paths);

// Errors of the zoo, of quant/ and of the file of --init; ValueError where nothing in that file fits.
BuiltModel build_model(const TrainOptions& options, std::int64_t classes);

}  // namespace qtrain::cli
