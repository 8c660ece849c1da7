// Convolutions on oneDNN. Activations stay channels-last; filters are reordered to whatever the kernel likes,
// which costs one pass over them (they change every step, so there is nothing to cache).
#include "engine/backend/cpu/convolution_gemm.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/cpu/onednn.h"
#include "engine/kernels/convert.h"
#include "engine/kernels/parallel.h"

namespace qtrain {
namespace {

using onednn::Prepared;
using Dims = dnnl::memory::dims;

constexpr auto algorithm = dnnl::algorithm::convolution_direct;

enum Kind : std::int64_t { forward = 1, backward_data = 2, backward_weight = 3 };

std::vector<std::int64_t> key_of(Kind kind, const ConvolutionGeometry& g, const Shape& x, const Shape& w,
                                 bool bias) {
  std::vector<std::int64_t> key{kind,          g.stride.h,  g.stride.w,   g.pad_begin.h,
                                g.pad_begin.w, g.pad_end.h, g.pad_end.w,  g.dilation.h,
                                g.dilation.w,  g.groups,    bias ? 1 : 0, thread_count()};
  key.insert(key.end(), x.dims().begin(), x.dims().end());
  key.insert(key.end(), w.dims().begin(), w.dims().end());
  return key;
}

// Everything that the three descriptors share. oneDNN counts dilation from 0.
struct Descriptors {
  dnnl::memory::desc x, w, bias, y;
  Dims stride, dilation, pad_begin, pad_end;
};

Descriptors describe(const ConvolutionGeometry& g, const Tensor& x, const Tensor& w, const Tensor& y,
                     bool bias) {
  Descriptors d;
  d.x = onednn::images(x.shape(), x.dtype());
  d.y = onednn::images(y.shape(), y.dtype());
  const dnnl::memory::desc user = onednn::filters(w.shape(), w.dtype(), g.groups);
  d.w = {user.dims(), user.data_type(), dnnl::memory::format_tag::any};
  if (bias) d.bias = onednn::rows({y.dim(1)}, y.dtype());
  d.stride = {g.stride.h, g.stride.w};
  d.dilation = {g.dilation.h - 1, g.dilation.w - 1};
  d.pad_begin = {g.pad_begin.h, g.pad_begin.w};
  d.pad_end = {g.pad_end.h, g.pad_end.w};
  return d;
}

dnnl::convolution_forward::primitive_desc forward_descriptor(const Descriptors& d) {
  const auto kind = dnnl::prop_kind::forward_training;
  const dnnl::convolution_forward::desc desc =
      d.bias.get_size() > 0 ? dnnl::convolution_forward::desc(kind, algorithm, d.x, d.w, d.bias, d.y,
                                                              d.stride, d.dilation, d.pad_begin, d.pad_end)
                            : dnnl::convolution_forward::desc(kind, algorithm, d.x, d.w, d.y, d.stride,
                                                              d.dilation, d.pad_begin, d.pad_end);
  return {desc, onednn::attributes(), onednn::engine()};
}

enum class Reorder { to_primitive, from_primitive };

template <class Primitive, class PrimitiveDescriptor>
Prepared prepare(const PrimitiveDescriptor& descriptor, const dnnl::memory::desc& wanted,
                 const dnnl::memory::desc& user, Reorder direction) {
  Prepared p;
  if (user.data_type() == dnnl::memory::data_type::bf16 && onednn::is_reference(descriptor)) return p;
  p.primitive = Primitive(descriptor);
  p.scratchpad = descriptor.scratchpad_desc();
  p.weights = wanted;
  p.user_weights = user;
  if (wanted != user) {
    const auto& from = direction == Reorder::to_primitive ? user : wanted;
    const auto& to = direction == Reorder::to_primitive ? wanted : user;
    p.reorder = dnnl::reorder(dnnl::reorder::primitive_desc(onednn::engine(), from, onednn::engine(), to));
  }
  return p;
}

// The filters as the primitive wants them: the user's own memory, or a reordered copy in scratch memory.
class ReorderedFilters {
 public:
  ReorderedFilters(const Stream& stream, const Prepared& p, void* user)
      : prepared_(p),
        user_(user),
        copy_(stream, p.reorder ? static_cast<std::int64_t>(p.weights.get_size()) : 1) {}
  void* data() { return prepared_.reorder ? copy_.data() : user_; }
  void load() {
    if (prepared_.reorder)
      onednn::execute(prepared_.reorder,
                      std::array<onednn::Argument, 2>{{{DNNL_ARG_FROM, prepared_.user_weights, user_},
                                                       {DNNL_ARG_TO, prepared_.weights, copy_.data()}}});
  }
  void store() {
    if (prepared_.reorder)
      onednn::execute(prepared_.reorder,
                      std::array<onednn::Argument, 2>{{{DNNL_ARG_FROM, prepared_.weights, copy_.data()},
                                                       {DNNL_ARG_TO, prepared_.user_weights, user_}}});
  }

 private:
  const Prepared& prepared_;
  void* user_;
  Scratch<std::byte> copy_;
};

// Each of the three returns false, with nothing done, where there is no fast kernel for bf16.

bool run_forward(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x, const Tensor& w,
                 const Tensor& bias, const Tensor& y) {
  if (convolution_gemm::preferred(g, w.shape(), y.shape()))
    return convolution_gemm::forward(stream, g, x, w, bias, y);
  const DType dtype = x.dtype();
  const auto p = onednn::cached(dtype, key_of(forward, g, x.shape(), w.shape(), bias.defined()), [&] {
    const auto descriptor = forward_descriptor(describe(g, x, w, y, bias.defined()));
    return prepare<dnnl::convolution_forward>(descriptor, descriptor.weights_desc(),
                                              onednn::filters(w.shape(), dtype, g.groups),
                                              Reorder::to_primitive);
  });
  if (!p->exists()) return false;
  ReorderedFilters filters(stream, *p, w.raw());
  filters.load();
  std::vector<onednn::Argument> arguments{{DNNL_ARG_SRC, onednn::images(x.shape(), dtype), x.raw()},
                                          {DNNL_ARG_WEIGHTS, p->weights, filters.data()},
                                          {DNNL_ARG_DST, onednn::images(y.shape(), dtype), y.raw()}};
  if (bias.defined()) arguments.push_back({DNNL_ARG_BIAS, onednn::rows(bias.shape(), dtype), bias.raw()});
  onednn::execute(p->primitive, arguments, p->scratchpad);
  return true;
}

bool run_backward_data(const Stream& stream, const ConvolutionGeometry& g, const Tensor& w,
                       const Tensor& grad_y, const Tensor& grad_x) {
  const DType dtype = grad_y.dtype();
  const auto p = onednn::cached(dtype, key_of(backward_data, g, grad_x.shape(), w.shape(), false), [&] {
    const Descriptors d = describe(g, grad_x, w, grad_y, false);
    const dnnl::convolution_backward_data::desc desc(algorithm, d.x, d.w, d.y, d.stride, d.dilation,
                                                     d.pad_begin, d.pad_end);
    const dnnl::convolution_backward_data::primitive_desc descriptor(desc, onednn::attributes(),
                                                                     onednn::engine(), forward_descriptor(d));
    return prepare<dnnl::convolution_backward_data>(descriptor, descriptor.weights_desc(),
                                                    onednn::filters(w.shape(), dtype, g.groups),
                                                    Reorder::to_primitive);
  });
  if (!p->exists()) return false;
  ReorderedFilters filters(stream, *p, w.raw());
  filters.load();
  onednn::execute(
      p->primitive,
      std::vector<onednn::Argument>{{DNNL_ARG_DIFF_DST, onednn::images(grad_y.shape(), dtype), grad_y.raw()},
                                    {DNNL_ARG_WEIGHTS, p->weights, filters.data()},
                                    {DNNL_ARG_DIFF_SRC, onednn::images(grad_x.shape(), dtype), grad_x.raw()}},
      p->scratchpad);
  return true;
}

bool run_backward_weight(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x,
                         const Tensor& grad_y, const Tensor& grad_w, const Tensor& grad_bias) {
  const bool bias = grad_bias.defined();
  if (!bias && convolution_gemm::preferred(g, grad_w.shape(), grad_y.shape()))
    return convolution_gemm::backward_weight(stream, g, x, grad_y, grad_w);
  const DType dtype = x.dtype();
  const auto p = onednn::cached(dtype, key_of(backward_weight, g, x.shape(), grad_w.shape(), bias), [&] {
    const Descriptors d = describe(g, x, grad_w, grad_y, bias);
    using Backward = dnnl::convolution_backward_weights;
    const Backward::desc desc =
        bias ? Backward::desc(algorithm, d.x, d.w, d.bias, d.y, d.stride, d.dilation, d.pad_begin, d.pad_end)
             : Backward::desc(algorithm, d.x, d.w, d.y, d.stride, d.dilation, d.pad_begin, d.pad_end);
    const Backward::primitive_desc descriptor(desc, onednn::attributes(), onednn::engine(),
                                              forward_descriptor(d));
    return prepare<Backward>(descriptor, descriptor.diff_weights_desc(),
                             onednn::filters(grad_w.shape(), dtype, g.groups), Reorder::from_primitive);
  });
  if (!p->exists()) return false;
  ReorderedFilters filters(stream, *p, grad_w.raw());
  std::vector<onednn::Argument> arguments{
      {DNNL_ARG_SRC, onednn::images(x.shape(), dtype), x.raw()},
      {DNNL_ARG_DIFF_DST, onednn::images(grad_y.shape(), dtype), grad_y.raw()},
      {DNNL_ARG_DIFF_WEIGHTS, p->weights, filters.data()}};
  if (bias)
    arguments.push_back({DNNL_ARG_DIFF_BIAS, onednn::rows(grad_bias.shape(), dtype), grad_bias.raw()});
  onednn::execute(p->primitive, arguments, p->scratchpad);
  filters.store();
  return true;
}

}  // namespace

void CpuBackend::convolution_forward(const Stream& stream, const ConvolutionGeometry& g, const Tensor& x,
                                     const Tensor& w, const Tensor& bias, const Tensor& y) try {
  if (run_forward(stream, g, x, w, bias, y)) return;
  const Tensor wide = Tensor::empty(y.shape());
  run_forward(stream, g, widened(stream, x), widened(stream, w), widened(stream, bias), wide);
  convert(stream, wide, y);
} catch (const dnnl::error& error) {
  onednn::rethrow(error, "conv2d", x, w);
}

void CpuBackend::convolution_backward_data(const Stream& stream, const ConvolutionGeometry& g,
                                           const Tensor& w, const Tensor& grad_y, const Tensor& grad_x) try {
  if (run_backward_data(stream, g, w, grad_y, grad_x)) return;
  const Tensor wide = Tensor::empty(grad_x.shape());
  run_backward_data(stream, g, widened(stream, w), widened(stream, grad_y), wide);
  convert(stream, wide, grad_x);
} catch (const dnnl::error& error) {
  onednn::rethrow(error, "conv2d backward", grad_y, w);
}

void CpuBackend::convolution_backward_weight(const Stream& stream, const ConvolutionGeometry& g,
                                             const Tensor& x, const Tensor& grad_y, const Tensor& grad_w,
                                             const Tensor& grad_bias) try {
  if (run_backward_weight(stream, g, x, grad_y, grad_w, grad_bias)) return;
  const Tensor wide = Tensor::empty(grad_w.shape());
  const Tensor wide_bias = grad_bias.defined() ? Tensor::empty(grad_bias.shape()) : Tensor();
  run_backward_weight(stream, g, widened(stream, x), widened(stream, grad_y), wide, wide_bias);
  convert(stream, wide, grad_w);
  if (grad_bias.defined()) convert(stream, wide_bias, grad_bias);
} catch (const dnnl::error& error) {
  onednn::rethrow(error, "conv2d backward", x, grad_y);
}

}  // namespace qtrain
