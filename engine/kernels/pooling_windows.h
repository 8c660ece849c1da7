// Which pixels a pooling window covers, and which windows cover a pixel, along one axis.
#pragma once

#include <cstdint>

#include "engine/core/host_device.h"

namespace qtrain {

// begin..end-1
struct Span {
  std::int64_t begin;
  std::int64_t end;
};

// The part of window `o` that lies inside 0..size-1.
QTRAIN_HOST_DEVICE Span window_at(std::int64_t o, std::int64_t kernel, std::int64_t stride, std::int64_t pad,
                                  std::int64_t size) {
  const std::int64_t start = o * stride - pad;
  const std::int64_t end = start + kernel;
  return {start > 0 ? start : 0, end < size ? end : size};
}

// The windows that cover position `i`.
QTRAIN_HOST_DEVICE Span windows_over(std::int64_t i, std::int64_t kernel, std::int64_t stride,
                                     std::int64_t pad, std::int64_t windows) {
  const std::int64_t last_start = i + pad;
  const std::int64_t first = last_start - kernel + 1;
  const std::int64_t end = last_start / stride + 1;
  return {first <= 0 ? 0 : (first + stride - 1) / stride, end < windows ? end : windows};
}

}  // namespace qtrain
