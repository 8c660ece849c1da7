#include "engine/ops/rearrange.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/core/layout.h"
#include "engine/kernels/bordered.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/scalar_functors.h"
#include "engine/ops/check.h"
#include "engine/ops/row_major_index.h"
#include "engine/ops/strides.h"

namespace qtrain {
namespace {

template <class T>
struct CopyReordered {
  RowMajorIndex from, to;
  const T* source;
  T* target;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const { target[to(i)] = source[from(i)]; }
};

// Copies in row-major order of both shapes.
Tensor reordered_copy(const Tensor& x, const Shape& shape) {
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(backend(x.device()).stream(), x.numel(),
             CopyReordered<T>{RowMajorIndex(x.shape()), RowMajorIndex(shape), x.data<T>(), y.data<T>()});
  });
  return y;
}

Tensor reshaped(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape || (!order_differs(x.shape()) && !order_differs(shape))) return x.view(shape);
  return reordered_copy(x, shape);
}

struct ReshapeNode final : Node {
  Shape x_shape;
  std::string_view name() const override { return "reshape"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    return {reshaped(grad_outputs[0], x_shape)};
  }
};

// The part of `whole` where dimension `dim` runs over start .. start + part's size, to or from `part`.
enum class Direction { into_whole, out_of_whole };
template <class T>
struct CopyPart {
  StoredOrder order;
  StoredOrder::Strides in_whole, in_part;
  T* whole;  // where the part starts
  T* part;
  Direction direction;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    T& in_w = whole[order.offset(i, in_whole)];
    T& in_p = part[order.offset(i, in_part)];
    if (direction == Direction::into_whole)
      in_w = in_p;
    else
      in_p = in_w;
  }
};
void copy_part(const Tensor& whole, const Tensor& part, std::size_t dim, std::int64_t start,
               Direction direction) {
  const StoredOrder order(part.shape());
  const auto in_part = order.strides_of(part.shape());
  // A dimension of size 1 has stride 0 in strides_of, but the start still needs its distance.
  StoredOrder::Strides in_whole = StoredOrder(whole.shape()).strides_of(whole.shape());
  const std::int64_t offset = start * in_whole[dim];
  with_float_type(whole.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(backend(whole.device()).stream(), part.numel(),
             CopyPart<T>{order, in_whole, in_part, whole.data<T>() + offset, part.data<T>(), direction});
  });
}

struct ConcatNode final : Node {
  std::vector<Shape> shapes;
  std::size_t dim = 0;
  std::string_view name() const override { return "concat"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    std::vector<Tensor> grads(shapes.size());
    std::int64_t start = 0;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      if (needs_grad(i)) {
        grads[i] = Tensor::empty(shapes[i], grad_outputs[0].dtype(), grad_outputs[0].device());
        copy_part(grad_outputs[0], grads[i], dim, start, Direction::out_of_whole);
      }
      start += shapes[i][dim];
    }
    return grads;
  }
};

struct PadNode final : Node {
  Border border;
  Shape x_shape;
  std::string_view name() const override { return "pad2d"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    Tensor grad_x = Tensor::empty(x_shape, g.dtype(), g.device());
    with_float_type(g.dtype(), [&](auto type) {
      using T = decltype(type);
      map_inside(backend(g.device()).stream(), BorderedRows(x_shape, border), Copied(), grad_x.data<T>(),
                 g.data<T>());
    });
    return {grad_x};
  }
};

constexpr int most_channels = 4;
struct NormalizePixel {
  std::array<float, most_channels> mean, std;
  int channels;
  const std::uint8_t* in;
  float* out;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t pixel) const {
    for (int c = 0; c < channels; ++c) {
      const std::int64_t i = pixel * channels + c;
      const auto at = static_cast<std::size_t>(c);
      out[i] = (static_cast<float>(in[i]) / 255.0F - mean[at]) / std[at];
    }
  }
};

void check_images(std::string_view op, const Tensor& images) {
  check::tensor(op, "images", images, DType::u8);
  check::rank(op, "images", images, {4});
}

}  // namespace

Tensor reshape(const Tensor& x, std::span<const std::int64_t> sizes) {
  check::floats("reshape", "x", x);
  std::array<std::int64_t, Shape::max_rank> dims{};
  check::sizes(sizes.size() <= dims.size(), "reshape", "too many dimensions", std::to_string(sizes.size()),
               "at most 6");
  std::int64_t known = 1;
  std::size_t open = sizes.size();
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    dims[i] = sizes[i];
    if (sizes[i] >= 0)
      known = known > x.numel() ? 0 : known * std::min(sizes[i], x.numel() + 1);  // can't overflow
    else if (sizes[i] == -1 && open == sizes.size())
      open = i;
    else
      known = 0;
  }
  const bool fits = known > 0 && (open < sizes.size() ? x.numel() % known == 0 : x.numel() == known);
  check::sizes(fits, "reshape", "number of elements differs",
               fmt::format("{} to [{}]", x.str(), fmt::join(sizes, ", ")),
               fmt::format("{} elements, at most one size -1", x.numel()));
  if (open < sizes.size()) dims[open] = x.numel() / known;
  const Shape shape(std::span<const std::int64_t>(dims.data(), sizes.size()));
  return Tape::record<ReshapeNode>("reshape", {x}, reshaped(x, shape),
                                   [&](ReshapeNode& node) { node.x_shape = x.shape(); });
}

Tensor flatten(const Tensor& x) {
  check::floats("flatten", "x", x);
  check::sizes(x.rank() >= 2, "flatten", "nothing to flatten", x.str(), "at least 2 dimensions");
  return reshape(x, {x.dim(0), x.numel() / std::max<std::int64_t>(1, x.dim(0))});
}

Tensor concat(std::span<const Tensor> parts, std::size_t dim) {
  check::sizes(!parts.empty(), "concat", "no tensors", "0", "at least 1");
  check::floats("concat", "part 0", parts[0]);
  check::sizes(dim < parts[0].rank(), "concat", "no such dimension", std::to_string(dim),
               fmt::format("below {}", parts[0].rank()));
  Shape shape = parts[0].shape();
  shape[dim] = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    check::tensor("concat", fmt::format("part {}", i), parts[i], parts[0].dtype());
    check::same_device("concat", {parts[0], parts[i]});
    Shape expected = parts[0].shape();
    if (parts[i].rank() == expected.rank()) expected[dim] = parts[i].dim(dim);
    check::shape("concat", fmt::format("part {}", i), parts[i], expected);
    shape[dim] += parts[i].dim(dim);
  }
  Tensor y = Tensor::empty(shape, parts[0].dtype(), parts[0].device());
  std::int64_t start = 0;
  for (const Tensor& part : parts) {
    copy_part(y, part, dim, start, Direction::into_whole);
    start += part.dim(dim);
  }
  auto node = std::make_shared<ConcatNode>();
  node->dim = dim;
  for (const Tensor& part : parts) node->shapes.push_back(part.shape());
  Tape::record(node, parts, std::span<const Tensor>(&y, 1));
  return y;
}

Tensor pad2d(const Tensor& x, Extent begin, Extent end, float value) {
  check::floats("pad2d", "x", x);
  check::rank("pad2d", "x", x, {4});
  const Border border{begin, end};
  check::padding("pad2d", border);
  Tensor y = Tensor::empty(border.around(x.shape()), x.dtype(), x.device());
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    fill_border(backend(x.device()).stream(), BorderedRows(x.shape(), border), value, y.data<T>(),
                x.data<T>());
  });
  return Tape::record<PadNode>("pad2d", {x}, y, [&](PadNode& node) {
    node.border = border;
    node.x_shape = x.shape();
  });
}

Tensor normalize_images(const Tensor& images, const std::vector<float>& mean, const std::vector<float>& std) {
  check_images("normalize_images", images);
  constexpr std::size_t most = most_channels;
  const auto channels = static_cast<std::size_t>(images.dim(1));
  check::sizes(channels >= 1 && channels <= most && mean.size() == channels && std.size() == channels,
               "normalize_images", "number of channels",
               fmt::format("{}, {} means and {} deviations", images.str(), mean.size(), std.size()),
               "one mean and one deviation a channel, 1 to 4 channels");
  std::array<float, most> m{};
  std::array<float, most> s{};
  std::ranges::copy(mean, m.begin());
  std::ranges::copy(std, s.begin());
  Tensor y = Tensor::empty(images.shape(), DType::f32, images.device());
  const std::uint8_t* in = images.data<std::uint8_t>();
  for_each(backend(images.device()).stream(), images.numel() / static_cast<std::int64_t>(channels),
           NormalizePixel{m, s, static_cast<int>(channels), in, y.data<float>()});
  return y;
}

Tensor images_to_float(const Tensor& images) {
  check_images("images_to_float", images);
  Tensor y = Tensor::empty(images.shape(), DType::f32, images.device());
  map(backend(images.device()).stream(), images.numel(), ToFloat(), y.data<float>(),
      static_cast<const std::uint8_t*>(images.data<std::uint8_t>()));
  return y;
}

}  // namespace qtrain
