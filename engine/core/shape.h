// The sizes of a tensor's dimensions, kept inline (no allocation). 4-D shapes are in N, C, H, W order
// whatever the order in memory.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace qtrain {

class Shape {
 public:
  static constexpr std::size_t max_rank = 6;

  Shape() = default;  // rank 0: a scalar
  Shape(std::initializer_list<std::int64_t>
            dims);  // NOLINT(google-explicit-constructor): shapes read as {2, 3}
  explicit Shape(std::span<const std::int64_t> dims);

  std::size_t rank() const { return rank_; }
  std::int64_t operator[](std::size_t i) const { return dims_[i]; }
  std::int64_t& operator[](std::size_t i) { return dims_[i]; }
  std::span<const std::int64_t> dims() const { return {dims_.data(), rank_}; }
  std::int64_t numel() const;  // product of the sizes; 1 for a scalar
  std::string str() const;     // "[2, 3, 32, 32]"

  friend bool operator==(const Shape& a, const Shape& b);

 private:
  std::array<std::int64_t, max_rank> dims_{};
  std::size_t rank_ = 0;
};

}  // namespace qtrain
