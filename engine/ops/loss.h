// Losses and accuracy of classification.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

// Mean over the batch of -sum_k q_k log softmax(logits)_k with q = (1 - smoothing) * onehot(label) +
// smoothing / K. logits f32 [N, K], labels i64 [N] in 0..K-1 (checked on the CPU; on a GPU a label out of
// range gives NaN).
Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, float label_smoothing = 0);

// How many rows have their label among the k largest logits, as f32 [1] on the logits' device; a row counts
// if fewer than k other classes score higher, ties going to the lower class. Off the tape.
Tensor count_top_k(const Tensor& logits, const Tensor& labels, std::int64_t k);

}  // namespace qtrain
