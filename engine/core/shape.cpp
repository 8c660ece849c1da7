#include "engine/core/shape.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/core/error.h"

namespace qtrain {

Shape::Shape(std::initializer_list<std::int64_t> dims)
    : Shape(std::span<const std::int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const std::int64_t> dims) : rank_(dims.size()) {
  if (dims.size() > max_rank)
    throw ShapeError({.where = "shape",
                      .what = "too many dimensions",
                      .got = std::to_string(dims.size()),
                      .expected = fmt::format("at most {}", max_rank),
                      .hint = ""});
  std::int64_t total = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    dims_[i] = dims[i];
    const bool overflows = dims[i] > 0 && __builtin_mul_overflow(total, dims[i], &total);
    if (dims[i] < 0 || overflows)
      throw ShapeError({.where = "shape",
                        .what = dims[i] < 0 ? "negative size" : "number of elements overflows",
                        .got = fmt::format("[{}]", fmt::join(dims, ", ")),
                        .expected = "",
                        .hint = ""});
  }
}

std::int64_t Shape::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t d : dims()) n *= d;
  return n;
}

std::string Shape::str() const {
  return fmt::format("[{}]", fmt::join(dims(), ", "));
}

bool operator==(const Shape& a, const Shape& b) {
  return std::ranges::equal(a.dims(), b.dims());
}

}  // namespace qtrain
