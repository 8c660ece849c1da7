// Where the elements of images lie inside the same images with a border.
#pragma once

#include <algorithm>

#include "engine/backend/geometry.h"
#include "engine/core/host_device.h"
#include "engine/kernels/functor.h"
#include "engine/kernels/parallel.h"

namespace qtrain {

// [N, C, H, W] images with a border, row by row.
class BorderedRows {
 public:
  BorderedRows(const Shape& images, const Border& border)
      : top_(border.begin.h),
        inner_height_(images[2]),
        height_(border.begin.h + images[2] + border.end.h),
        left_(border.begin.w * images[1]),
        inner_length_(images[3] * images[1]),
        length_(left_ + inner_length_ + border.end.w * images[1]),
        count_(images[0] * height_) {}

  QTRAIN_HOST_DEVICE std::int64_t count() const { return count_; }  // of all images, with the border
  std::int64_t length() const { return length_; }                   // elements of a row with its border
  std::int64_t grain() const { return at_least_one(map_grain); }
  std::int64_t block() const { return at_least_one(reduction_block); }  // rows of one

  // Calls inside(start in the wide array, start in the other, elements) and around(start, elements) for the
  // parts of a row.
  template <class Inside, class Around>
  QTRAIN_HOST_DEVICE void visit(std::int64_t row, Inside&& inside, Around&& around) const {
    const std::int64_t start = row * length_;
    const std::int64_t y = row % height_ - top_;
    if (y < 0 || y >= inner_height_) return around(start, length_);
    const std::int64_t right = left_ + inner_length_;
    if (left_ > 0) around(start, left_);
    inside(start + left_, (row / height_ * inner_height_ + y) * inner_length_, inner_length_);
    if (right < length_) around(start + right, length_ - right);
  }

 private:
  std::int64_t at_least_one(std::int64_t elements) const {
    return std::max<std::int64_t>(1, elements / std::max<std::int64_t>(1, length_));
  }

  std::int64_t top_, inner_height_, height_;   // in rows
  std::int64_t left_, inner_length_, length_;  // in elements
  std::int64_t count_;
};

}  // namespace qtrain
