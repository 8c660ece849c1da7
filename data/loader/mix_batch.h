// Mixup and CutMix of a batch whose samples are all there.
#pragma once

#include <cstdint>

#include "data/augment/mix.h"
#include "data/loader/sample_reader.h"

namespace qtrain::data {

// Mixes the images, and fills the partners' labels and lambda, by draws that depend on seed, epoch and the
// batch's number in the epoch. Nothing where mixing is off; a batch that isn't drawn has lambda 1.
void mix_batch(const MixOptions& options, std::uint64_t seed, std::uint64_t epoch, std::uint64_t number,
               Batch& batch);

}  // namespace qtrain::data
