// Losses and accuracy of classification.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

// Mean over the batch of -sum_k q_k log softmax(logits)_k with q = (1 - smoothing) * onehot(label) +
// smoothing / K. logits f32 [N, K], labels i64 [N] in 0..K-1 (checked on the CPU; on a GPU a label out of
// range gives NaN).
Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, float label_smoothing = 0);

// The labels of images that are mixed of two.
struct MixedLabels {
  Tensor first;    // i64 [N]
  Tensor partner;  // i64 [N]
  Tensor lambda;   // f32 [1], 0..1: the share of the first ones
};

// The same with q = (1 - smoothing) * (lambda * onehot(first) + (1 - lambda) * onehot(partner)) +
// smoothing / K, which is lambda * CE(first) + (1 - lambda) * CE(partner).
Tensor softmax_cross_entropy(const Tensor& logits, const MixedLabels& labels, float label_smoothing = 0);

// How many rows have their label among the k largest logits, as f32 [1] on the logits' device; a row counts
// if fewer than k other classes score higher, ties going to the lower class. Off the tape.
Tensor count_top_k(const Tensor& logits, const Tensor& labels, std::int64_t k);

}  // namespace qtrain
