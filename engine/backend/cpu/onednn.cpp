#include "engine/backend/cpu/onednn.h"

#include <fmt/format.h>

#include <map>
#include <mutex>
#include <unordered_map>

#include "engine/core/error.h"
#include "engine/kernels/parallel.h"

namespace qtrain::onednn {
namespace {

constexpr std::size_t most_cached = 2048;

dnnl::memory::dims dims_of(const Shape& shape) {
  return {shape.dims().begin(), shape.dims().end()};
}

}  // namespace

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::memory::data_type type_of(DType dtype) {
  return dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

dnnl::memory::desc rows(const Shape& shape, DType dtype) {
  dnnl::memory::dims strides(shape.rank(), 1);
  for (std::size_t i = shape.rank() - 1; i > 0; --i) strides[i - 1] = strides[i] * shape[i];
  return {dims_of(shape), type_of(dtype), strides};
}

dnnl::memory::desc images(const Shape& shape, DType dtype) {
  return {dims_of(shape), type_of(dtype), dnnl::memory::format_tag::nhwc};
}

dnnl::memory::desc filters(const Shape& shape, DType dtype, std::int64_t groups) {
  if (groups == 1) return images(shape, dtype);
  const std::int64_t out = shape[0] / groups;
  const std::int64_t in = shape[1];
  const std::int64_t kh = shape[2];
  const std::int64_t kw = shape[3];
  return {{groups, out, in, kh, kw},
          type_of(dtype),
          dnnl::memory::dims{out * kh * kw * in, kh * kw * in, 1, kw * in, in}};
}

std::shared_ptr<const Prepared> cached(DType dtype, std::vector<std::int64_t> key,
                                       const std::function<Prepared()>& make) {
  key.push_back(static_cast<std::int64_t>(dtype));
  static std::mutex mutex;
  static std::map<std::vector<std::int64_t>, std::shared_ptr<const Prepared>> cache;
  const std::scoped_lock lock(mutex);
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  if (cache.size() >= most_cached) cache.clear();
  auto prepared = std::make_shared<Prepared>();
  try {
    *prepared = make();
  } catch (const dnnl::error& error) {
    if (dtype != DType::bf16 || error.status != dnnl_unimplemented) throw;
  }
  prepared->scratchpad_bytes = prepared->scratchpad.get_size();
  return cache.emplace(key, std::move(prepared)).first->second;
}

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

void execute(const dnnl::primitive& primitive, std::span<const Argument> arguments,
             const dnnl::memory::desc& scratchpad) {
  thread_local dnnl::stream stream(engine());
  std::unordered_map<int, dnnl::memory> memories;
  for (const Argument& a : arguments) memories.emplace(a.index, dnnl::memory(a.desc, engine(), a.data));
  const Scratch<std::byte> temporary({}, static_cast<std::int64_t>(scratchpad.get_size()) + 1);
  if (scratchpad.get_size() > 0)
    memories.emplace(DNNL_ARG_SCRATCHPAD, dnnl::memory(scratchpad, engine(), temporary.data()));
  primitive.execute(stream, memories);
  stream.wait();
}

void rethrow(const dnnl::error& error, const char* op, const Tensor& a, const Tensor& b) {
  throw ValueError({.where = op,
                    .what = fmt::format("oneDNN declines: {}", error.what()),
                    .got = fmt::format("{} and {}", a.str(), b.str()),
                    .expected = "",
                    .hint = ""});
}

}  // namespace qtrain::onednn
