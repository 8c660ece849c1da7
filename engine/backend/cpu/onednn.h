// What the CPU backend needs from oneDNN: one engine, a cache of prepared primitives, and their execution
// with temporary memory from our own allocator. Nothing outside engine/backend/cpu includes oneDNN.
#pragma once

#include <dnnl.hpp>

#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "engine/core/tensor.h"

namespace qtrain::onednn {

const dnnl::engine& engine();

// Dense row-major f32 with the given sizes.
dnnl::memory::desc rows(const Shape& shape);
// A [N, C, H, W] tensor, stored channels-last.
dnnl::memory::desc images(const Shape& shape);
// A [O, I/groups, kh, kw] tensor, stored channels-last; with groups oneDNN wants a dimension more.
dnnl::memory::desc filters(const Shape& shape, std::int64_t groups);

// A primitive with the layouts it wants, ready to run. Weights are the only operand that may need reordering:
// activations are channels-last by our own choice.
struct Prepared {
  dnnl::primitive primitive;
  std::size_t scratchpad_bytes = 0;
  dnnl::memory::desc scratchpad;
  dnnl::memory::desc weights;  // as the primitive wants them
  dnnl::memory::desc user_weights;
  dnnl::primitive reorder;  // between the two; empty where they agree
};

// The prepared primitive under `key`, made by `make` the first time. A key says everything that matters:
// kind, sizes, geometry. Thread-safe.
std::shared_ptr<const Prepared> cached(const std::vector<std::int64_t>& key,
                                       const std::function<Prepared()>& make);

// Attributes of every primitive: temporary memory is ours.
dnnl::primitive_attr attributes();

struct Argument {
  int index;
  dnnl::memory::desc desc;
  void* data;
};
void execute(const dnnl::primitive& primitive, std::span<const Argument> arguments,
             const dnnl::memory::desc& scratchpad = {});

// A row-major matrix in memory, used as it is or transposed.
struct Matrix {
  float* data;
  std::int64_t rows;
  std::int64_t columns;
  bool transposed = false;
};
// c = op(a) op(b) + bias (one value a column, or nullptr).
void multiply(const Matrix& a, const Matrix& b, float* bias, const Matrix& c);

// Turns a dnnl::error into one of ours that names the op and the operands.
[[noreturn]] void rethrow(const dnnl::error& error, const char* op, const Tensor& a, const Tensor& b);

}  // namespace qtrain::onednn
