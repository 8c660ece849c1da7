// The flags of augmentation: their table, their rules, and what they make of a loader.
#pragma once

#include "cli/data_setup.h"
#include "cli/field.h"
#include "cli/train_options.h"

namespace qtrain::cli {

Fields augmentation_fields(TrainOptions& options);

// Rules that bind several of these settings. Throws ValueError.
void validate_augmentation(const TrainOptions& options);

// How images are cut out and resized, in training and in evaluation.
void set_geometry(data::PipelineOptions& pipeline, const TrainOptions& options, const DataSource& source);

// What happens in training only. ValueError, with the flag's name, for one that has nothing to act on in this
// data.
void set_training_augmentation(data::LoaderOptions& loader, const TrainOptions& options,
                               const DataSource& source);

}  // namespace qtrain::cli
