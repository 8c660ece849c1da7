#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/cpu/onednn.h"
#include "engine/kernels/convert.h"
#include "engine/kernels/parallel.h"

namespace qtrain {
namespace {

constexpr std::int64_t matmul_key = 10;

dnnl::memory::desc describe(const onednn::Matrix& m, DType dtype) {
  using Dims = dnnl::memory::dims;
  const auto type = onednn::type_of(dtype);
  return m.transposed ? dnnl::memory::desc(Dims{m.columns, m.rows}, type, Dims{1, m.columns})
                      : dnnl::memory::desc(Dims{m.rows, m.columns}, type, Dims{m.columns, 1});
}

onednn::Matrix matrix(const Tensor& t, bool transposed) {
  return {t.raw(), t.dim(0), t.dim(1), transposed};
}

}  // namespace

bool onednn::multiply(DType dtype, const Matrix& a, const Matrix& b, void* bias, const Matrix& c) {
  const dnnl::memory::desc a_desc = describe(a, dtype);
  const dnnl::memory::desc b_desc = describe(b, dtype);
  const dnnl::memory::desc c_desc = describe(c, dtype);
  const dnnl::memory::desc bias_desc = rows({1, c.columns}, dtype);
  const bool has_bias = bias != nullptr;
  const auto make = [&] {
    const dnnl::matmul::desc desc = has_bias ? dnnl::matmul::desc(a_desc, b_desc, bias_desc, c_desc)
                                             : dnnl::matmul::desc(a_desc, b_desc, c_desc);
    const dnnl::matmul::primitive_desc descriptor(desc, attributes(), engine());
    Prepared prepared;
    if (dtype == DType::bf16 && is_reference(descriptor)) return prepared;
    prepared.primitive = dnnl::matmul(descriptor);
    prepared.scratchpad = descriptor.scratchpad_desc();
    return prepared;
  };
  const auto p = cached(dtype,
                        {matmul_key, a.transposed ? 1 : 0, b.transposed ? 1 : 0, has_bias ? 1 : 0, a.rows,
                         a.columns, b.rows, b.columns, thread_count()},
                        make);
  if (!p->exists()) return false;
  std::vector<Argument> arguments{
      {DNNL_ARG_SRC, a_desc, a.data}, {DNNL_ARG_WEIGHTS, b_desc, b.data}, {DNNL_ARG_DST, c_desc, c.data}};
  if (has_bias) arguments.push_back({DNNL_ARG_BIAS, bias_desc, bias});
  execute(p->primitive, arguments, p->scratchpad);
  return true;
}

void CpuBackend::matmul(const Stream& stream, const Tensor& a, bool transpose_a, const Tensor& b,
                        bool transpose_b, const Tensor& bias, const Tensor& c) try {
  if (onednn::multiply(c.dtype(), matrix(a, transpose_a), matrix(b, transpose_b),
                       bias.defined() ? bias.raw() : nullptr, matrix(c, false)))
    return;
  const Tensor wide = Tensor::empty(c.shape());
  matmul(stream, widened(stream, a), transpose_a, widened(stream, b), transpose_b, widened(stream, bias),
         wide);
  convert(stream, wide, c);
} catch (const dnnl::error& error) {
  onednn::rethrow(error, "matmul", a, b);
}

}  // namespace qtrain
