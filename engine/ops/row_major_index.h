#pragma once

#include "engine/core/host_device.h"
#include "engine/core/layout.h"

namespace qtrain {

// Where the element with row-major index i of a shape lies in storage.
struct RowMajorIndex {
  std::int64_t channels = 1;
  std::int64_t pixels = 1;
  bool reordered = false;
  explicit RowMajorIndex(const Shape& s) : reordered(order_differs(s)) {
    if (!reordered) return;
    channels = s[1];
    pixels = s[2] * s[3];
  }
  QTRAIN_HOST_DEVICE std::int64_t operator()(std::int64_t i) const {
    if (!reordered) return i;
    const std::int64_t image = i / (channels * pixels);
    const std::int64_t rest = i % (channels * pixels);
    return (image * pixels + rest % pixels) * channels + rest / pixels;
  }
};

}  // namespace qtrain
