#include "engine/ops/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/core/error.h"
#include "engine/kernels/float_type.h"

namespace qtrain::check {

namespace {

void require_type(bool holds, std::string_view op, std::string_view name, const Tensor& t,
                  std::string_view expected) {
  if (!t.defined())
    throw ValueError({.where = std::string(op),
                      .what = fmt::format("'{}' is missing", name),
                      .got = "no tensor",
                      .expected = std::string(expected),
                      .hint = ""});
  if (!holds)
    throw DTypeError({.where = std::string(op),
                      .what = fmt::format("'{}' has the wrong element type", name),
                      .got = t.str(),
                      .expected = std::string(expected),
                      .hint = ""});
}

}  // namespace

void tensor(std::string_view op, std::string_view name, const Tensor& t, DType dtype) {
  require_type(t.defined() && t.dtype() == dtype, op, name, t, name_of(dtype));
}

void floats(std::string_view op, std::string_view name, const Tensor& t) {
  require_type(t.defined() && is_float_type(t.dtype()), op, name, t, "f32 or bf16");
}

void rank(std::string_view op, std::string_view name, const Tensor& t,
          std::initializer_list<std::size_t> ranks) {
  sizes(std::ranges::find(ranks, t.rank()) != ranks.end(), op,
        fmt::format("'{}' has the wrong number of dimensions", name), t.str(),
        fmt::format("{}", fmt::join(ranks, " or ")));
}

void shape(std::string_view op, std::string_view name, const Tensor& t, const Shape& expected) {
  sizes(t.shape() == expected, op, fmt::format("'{}' has the wrong shape", name), t.str(), expected.str());
}

void padding(std::string_view op, const Border& border) {
  constexpr std::int64_t most = 1 << 20;
  const auto& [begin, end] = border;
  for (const std::int64_t side : {begin.h, begin.w, end.h, end.w})
    value(side >= 0 && side <= most, op, "padding",
          fmt::format("{}x{} and {}x{}", begin.h, begin.w, end.h, end.w), fmt::format("0..{}", most));
}

void same_device(std::string_view op, std::initializer_list<Tensor> tensors) {
  const Tensor* first = nullptr;
  for (const Tensor& t : tensors) {
    if (!t.defined()) continue;
    if (first == nullptr) first = &t;
    if (t.device() != first->device())
      throw DeviceError({.where = std::string(op),
                         .what = "tensors on different devices",
                         .got = fmt::format("{} and {}", first->device().str(), t.device().str()),
                         .expected = "one device",
                         .hint = "move them with to()"});
  }
}

void sizes(bool holds, std::string_view op, std::string_view what, const std::string& got,
           const std::string& expected, const std::string& hint) {
  if (!holds) throw ShapeError({std::string(op), std::string(what), got, expected, hint});
}

void value(bool holds, std::string_view op, std::string_view what, const std::string& got,
           const std::string& expected, const std::string& hint) {
  if (!holds) throw ValueError({std::string(op), std::string(what), got, expected, hint});
}

}  // namespace qtrain::check
