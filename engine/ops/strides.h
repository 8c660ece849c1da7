// Index arithmetic of broadcasting: walks the elements of a shape in storage order (channels-last for rank 4)
// and finds the matching element of an operand whose repeated dimensions have stride 0.
#pragma once

#include <algorithm>
#include <array>

#include "engine/core/host_device.h"
#include "engine/core/shape.h"

namespace qtrain {

class StoredOrder {
 public:
  using Strides =
      std::array<std::int64_t, Shape::max_rank>;  // in elements, by dimension of the aligned shape

  // `rank`: sizes are aligned at the last dimension, missing ones are 1.
  explicit StoredOrder(const Shape& shape, std::size_t rank = 0) : rank_(std::max(rank, shape.rank())) {
    sizes_.fill(1);
    for (std::size_t i = 0; i < shape.rank(); ++i) sizes_[rank_ - shape.rank() + i] = shape[i];
    order_ = storage_order(rank_);
  }

  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::size_t i = 0; i < rank_; ++i) n *= sizes_[i];
    return n;
  }

  // Strides of an operand of this shape, stored in its own order; 0 where its size is 1.
  Strides strides_of(const Shape& operand) const {
    Strides by_dimension{};
    const auto order = storage_order(operand.rank());
    std::int64_t stride = 1;
    for (std::size_t k = operand.rank(); k-- > 0;) {
      const std::size_t dim = order[k];
      const std::size_t aligned = rank_ - operand.rank() + dim;
      by_dimension[aligned] = operand[dim] == 1 ? 0 : stride;
      stride *= operand[dim];
    }
    return by_dimension;
  }

  // The dimensions of `whole` along which this shape has size 1.
  StoredOrder complement(const Shape& whole) const {
    StoredOrder result(whole, rank_);
    for (std::size_t i = 0; i < rank_; ++i)
      if (sizes_[i] == result.sizes_[i]) result.sizes_[i] = 1;
    return result;
  }

  // Where the operand keeps the element that belongs to the i-th stored element of this shape.
  QTRAIN_HOST_DEVICE std::int64_t offset(std::int64_t i, const Strides& strides) const {
    std::int64_t at = 0;
    for (std::size_t k = rank_; k-- > 0;) {
      const std::size_t dim = order_[k];
      at += i % sizes_[dim] * strides[dim];
      i /= sizes_[dim];
    }
    return at;
  }

 private:
  // Dimensions from the slowest to the fastest in memory.
  static std::array<std::size_t, Shape::max_rank> storage_order(std::size_t rank) {
    if (rank == 4) return {0, 2, 3, 1};
    std::array<std::size_t, Shape::max_rank> order{};
    for (std::size_t i = 0; i < rank; ++i) order[i] = i;
    return order;
  }

  std::size_t rank_;
  std::array<std::int64_t, Shape::max_rank> sizes_{};
  std::array<std::size_t, Shape::max_rank> order_{};
};

}  // namespace qtrain
