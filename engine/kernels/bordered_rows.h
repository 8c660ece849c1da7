// Where the elements of images lie inside the same images with a border.
#pragma once

#include <algorithm>
#include <type_traits>

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
        count_(images[0] * height_),
        inner_count_(images[0] * inner_height_) {}

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

  // For kernels that go over the images' elements instead, whatever their order: ahead of each row of an
  // image, and behind the last of all, the border is one gap in the wide array. It holds a row's right end,
  // what lies between two images, and the next row's left end.

  // Where element i lies in the wide array.
  QTRAIN_HOST_DEVICE std::int64_t at(std::int64_t i) const {
    return start(i / inner_length_) + i % inner_length_;
  }

  // Elements [first, first + count): calls inside(start in the wide array, start in the other, elements) for
  // their parts of rows, around(start, elements) for the gap of each row that starts with one of them.
  template <class Inside, class Around>
  void visit(std::int64_t first, std::int64_t count, Inside&& inside, Around&& around) const {
    for (std::int64_t i = first; i < first + count;) {
      const std::int64_t row = i / inner_length_;
      const std::int64_t end = std::min(first + count, (row + 1) * inner_length_);
      const auto fill = [&](Gap gap) {
        if (gap.begin < gap.end) around(gap.begin, gap.end - gap.begin);
      };
      if (i % inner_length_ == 0) fill(gap_ahead(row));
      inside(at(i), i, end - i);
      if (end == inner_count_ * inner_length_) fill(gap_ahead(row + 1));
      i = end;
    }
  }

  // Calls f(place in the wide array) for element i's share of its row's gap: each place in the border has one
  // owner, of the same channel, and a large gap many.
  template <class F>
  QTRAIN_HOST_DEVICE void visit_share(std::int64_t i, F&& f) const {
    const std::int64_t row = i / inner_length_;
    const std::int64_t along = i % inner_length_;
    const bool is_last = row + 1 == inner_count_;
    // Most elements have none: between two rows of an image the gap is a few columns.
    if (along >= length_ - inner_length_ && row % inner_height_ != 0 && !is_last) return;
    for (std::int64_t r = row; r <= (is_last ? row + 1 : row); ++r) {
      const Gap gap = gap_ahead(r);
      for (std::int64_t at = gap.begin + along; at < gap.end; at += inner_length_) f(at);
    }
  }

 private:
  struct Gap {
    std::int64_t begin, end;
  };
  // Of a row without its border, in the wide array.
  QTRAIN_HOST_DEVICE std::int64_t start(std::int64_t inner_row) const {
    return (inner_row / inner_height_ * height_ + top_ + inner_row % inner_height_) * length_ + left_;
  }
  QTRAIN_HOST_DEVICE Gap gap_ahead(std::int64_t inner_row) const {
    const std::int64_t all = count_ * length_;
    const std::int64_t end = start(inner_row);
    return {inner_row == 0 ? 0 : start(inner_row - 1) + inner_length_, end < all ? end : all};
  }
  std::int64_t at_least_one(std::int64_t elements) const {
    return std::max<std::int64_t>(1, elements / std::max<std::int64_t>(1, length_));
  }

  std::int64_t top_, inner_height_, height_;   // in rows
  std::int64_t left_, inner_length_, length_;  // in elements
  std::int64_t count_, inner_count_;           // rows of all images
};

// In place of BorderedRows where there is no border: an element lies at the same place in all arrays.
struct NoBorder {
  QTRAIN_HOST_DEVICE std::int64_t at(std::int64_t i) const { return i; }
  template <class Inside, class Around>
  void visit(std::int64_t first, std::int64_t count, Inside&& inside, Around&& /*around*/) const {
    inside(first, first, count);
  }
  template <class F>
  QTRAIN_HOST_DEVICE void visit_share(std::int64_t /*i*/, F&& /*f*/) const {}
};

template <class Rows>
inline constexpr bool has_border = !std::is_same_v<Rows, NoBorder>;

}  // namespace qtrain
