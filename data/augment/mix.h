// Mixup (Zhang et al. 2017) and CutMix (Yun et al. 2019) in timm's batch mode: one choice for a whole batch,
// in which image i of n is mixed with image n-1-i. The middle image of an odd batch meets itself.
#pragma once

#include <cstdint>

#include "data/augment/pixels.h"
#include "engine/core/rng.h"

namespace qtrain::data {

struct MixOptions {
  double mixup_alpha = 0;           // lambda ~ Beta(alpha, alpha); 0: no Mixup
  double cutmix_alpha = 0;          // 0: no CutMix
  double probability = 1;           // that a batch is mixed at all
  double switch_probability = 0.5;  // of CutMix, where both are on

  bool is_on() const { return mixup_alpha > 0 || cutmix_alpha > 0; }
  void check() const;  // ValueError for an option out of its range
};

// What happens to a batch.
struct Mixing {
  double lambda = 1;  // what an image keeps of itself
  bool cuts = false;  // CutMix: its pixels in `box` become its partner's; else Mixup: all are blended
  Box box;
};

// Draws whether to mix, then which of the two where both are on, then lambda, then for CutMix the centre's
// row and column. The box has the share 1 - lambda of the image before it is clipped at the border; lambda
// becomes what is left.
Mixing draw_mixing(const MixOptions& options, Size image, RandomStream& random);

// Of a batch of `count` images, one behind the other. Mixup rounds to 8 bits: its weights have 15 bits.
void mix_images(const Mixing& mixing, std::span<std::uint8_t> images, std::size_t count, Size image);

}  // namespace qtrain::data
