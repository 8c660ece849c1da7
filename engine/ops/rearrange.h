// Ops that move elements, f32 or bf16, without changing them.
#pragma once

#include "engine/backend/geometry.h"
#include "engine/core/tensor.h"

namespace qtrain {

// The elements in N, C, H, W (row-major) order under another shape; one size may be -1. Copies only where
// channels-last storage forces it (4-D tensors with more than one channel and more than one pixel).
Tensor reshape(const Tensor& x, std::span<const std::int64_t> sizes);
inline Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> sizes) {
  return reshape(x, std::span<const std::int64_t>(sizes.begin(), sizes.size()));
}

// [N, ...] to [N, product of the rest].
Tensor flatten(const Tensor& x);

// Joins tensors along one dimension; the other sizes agree.
Tensor concat(std::span<const Tensor> parts, std::size_t dim);

// Adds rows and columns of `value` around the images of [N, C, H, W].
Tensor pad2d(const Tensor& x, Extent begin, Extent end, float value = 0);

// u8 images stored channels-last as [N, H, W, C] bytes (given as a [N, C, H, W] tensor) to f32:
// y = (x / 255 - mean[c]) / std[c], in float32 in this order. Off the tape.
Tensor normalize_images(const Tensor& images, const std::vector<float>& mean, const std::vector<float>& std);
// y = x as f32: raw pixel values 0..255. Off the tape.
Tensor images_to_float(const Tensor& images);

}  // namespace qtrain
