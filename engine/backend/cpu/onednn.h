// What the CPU backend needs from oneDNN: one engine, a cache of prepared primitives, and their execution
// with temporary memory from our own allocator. Nothing outside engine/backend/cpu includes oneDNN.
#pragma once

#include <dnnl.hpp>

#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/core/tensor.h"

namespace qtrain::onednn {

const dnnl::engine& engine();

// Dense and row-major with the given sizes. Elements are f32 or bf16.
dnnl::memory::desc rows(const Shape& shape, DType dtype);
// A [N, C, H, W] tensor, stored channels-last.
dnnl::memory::desc images(const Shape& shape, DType dtype);
// A [O, I/groups, kh, kw] tensor, stored channels-last; with groups oneDNN wants a dimension more.
dnnl::memory::desc filters(const Shape& shape, DType dtype, std::int64_t groups);

dnnl::memory::data_type type_of(DType dtype);

// A primitive with the layouts it wants, ready to run. Weights are the only operand that may need reordering:
// activations are channels-last by our own choice.
struct Prepared {
  dnnl::primitive primitive;
  std::size_t scratchpad_bytes = 0;
  dnnl::memory::desc scratchpad;
  dnnl::memory::desc weights;  // as the primitive wants them
  dnnl::memory::desc user_weights;
  dnnl::primitive reorder;  // between the two; empty where they agree

  // False where oneDNN has no fast kernel for bf16: on processors without AVX-512, and for some geometries.
  bool exists() const { return static_cast<bool>(primitive); }
};

// The prepared primitive of an element type under `key`, made by `make` the first time. A key says everything
// else that matters: kind, sizes, geometry. Thread-safe.
std::shared_ptr<const Prepared> cached(DType dtype, std::vector<std::int64_t> key,
                                       const std::function<Prepared()>& make);

// Attributes of every primitive: temporary memory is ours.
dnnl::primitive_attr attributes();

// Whether oneDNN would compute by its reference loops, orders of magnitude slower than anything else.
template <class PrimitiveDescriptor>
bool is_reference(const PrimitiveDescriptor& descriptor) {
  return std::string_view(descriptor.impl_info_str()).starts_with("ref");
}

struct Argument {
  int index;
  dnnl::memory::desc desc;
  void* data;
};
void execute(const dnnl::primitive& primitive, std::span<const Argument> arguments,
             const dnnl::memory::desc& scratchpad = {});

// A row-major matrix in memory, used as it is or transposed.
struct Matrix {
  void* data;
  std::int64_t rows;
  std::int64_t columns;
  bool transposed = false;
};
// c = op(a) op(b) + bias (one value a column, or nullptr), all of one element type. False, with nothing done,
// where there is no fast kernel for bf16.
bool multiply(DType dtype, const Matrix& a, const Matrix& b, void* bias, const Matrix& c);

// Turns a dnnl::error into one of ours that names the op and the operands.
[[noreturn]] void rethrow(const dnnl::error& error, const char* op, const Tensor& a, const Tensor& b);

}  // namespace qtrain::onednn
