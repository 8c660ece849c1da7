#include "data/loader/mix_batch.h"

namespace qtrain::data {

void mix_batch(const MixOptions& options, std::uint64_t seed, std::uint64_t epoch, std::uint64_t number,
               Batch& batch) {
  if (!options.is_on()) return;
  RandomStream random(seed, RandomPurpose::mix, epoch, number);
  const Size image{batch.width, batch.height};
  const Mixing mixing = draw_mixing(options, image, random);
  mix_images(mixing, batch.bytes, batch.labels.size(), image);
  batch.partner_labels.assign(batch.labels.rbegin(), batch.labels.rend());
  batch.lambda = static_cast<float>(mixing.lambda);
}

}  // namespace qtrain::data
