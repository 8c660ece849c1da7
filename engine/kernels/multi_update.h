// Elementwise work on many tensors in one pass, such as an optimizer's update of all parameters or the norm
// of all gradients:
//
//   multi_update(stream, sets, f)                     f(a[i], b[i], c[i]...) with references, for element i
//   of
//                                                     every set of arrays {a, b, c...}
//   multi_reduce<K, Combine>(stream, sets, f, results)
//                                                     f returns Terms<K>; one result over all sets together
//
// Sets may have settings in common: those of one group. `void prepare(std::int64_t group)` of a functor reads
// them where it runs, through pointers; `void prepare()` still works where all sets share everything. Nothing
// that changes from step to step need be a member of the functor, so a recorded pass can be run again.
//
// The tensors stay where they are. If each kind lay in one flat array, there would be no list, but backward
// hands over the gradients that it computed, and copying them there would cost a pass.
//
// Every set is cut into chunks of `reduction_block` elements. Their results are what reduce() makes of a
// block, merged in double in an order that depends on the sizes alone.
#pragma once

#include "engine/kernels/device/multi_update.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/tensor_set.h"

namespace qtrain {

namespace detail {

struct Chunk {
  std::size_t set;
  std::int64_t begin, end;
};

template <class... Element>
std::vector<Chunk> chunks_of(const TensorSets<Element...>& sets) {
  std::vector<Chunk> chunks;
  for (std::size_t s = 0; s < sets.size(); ++s)
    for (std::int64_t begin = 0; begin < sets[s].count; begin += reduction_block)
      chunks.push_back({s, begin, std::min(begin + reduction_block, sets[s].count)});
  return chunks;
}

// Calls body(functor, chunk number, chunk, set) for all chunks, in parallel.
template <class F, class... Element, class Body>
void for_chunks(const TensorSets<Element...>& sets, const std::vector<Chunk>& chunks, const F& f,
                Body&& body) {
  std::int64_t elements = 0;
  for (const auto& set : sets) elements += set.count;
  const auto count = static_cast<std::int64_t>(chunks.size());
  const std::int64_t grain =
      std::max<std::int64_t>(1, map_grain * count / std::max<std::int64_t>(1, elements));
  parallel_for(count, grain, [&](std::int64_t first, std::int64_t last) {
    F local = f;
    std::int64_t prepared = -1;
    for (std::int64_t c = first; c < last; ++c) {
      const Chunk& chunk = chunks[static_cast<std::size_t>(c)];
      const TensorSet<Element...>& set = sets[chunk.set];
      if (set.group != prepared) prepare_group(local, set.group);
      prepared = set.group;
      body(local, c, chunk, set);
    }
  });
}

// By value, as in map_block().
template <class F, class... Element>
void update_chunk(F f, const Chunk& chunk, Element*... arrays) {
#pragma omp simd
  for (std::int64_t i = chunk.begin; i < chunk.end; ++i) f(arrays[i]...);
}

}  // namespace detail

template <class F, class... Element>
void multi_update(const Stream& stream, const TensorSets<Element...>& sets, const F& f) {
  if (on_device(stream)) return device::multi_update(stream, sets, f);
  detail::for_chunks(sets, detail::chunks_of(sets), f,
                     [](const F& local, std::int64_t, const detail::Chunk& chunk, const auto& set) {
                       std::apply([&](auto*... arrays) { detail::update_chunk(local, chunk, arrays...); },
                                  set.arrays);
                     });
}

template <int K, class Combine, class F, class... Element>
void multi_reduce(const Stream& stream, const TensorSets<Element...>& sets, const F& f, float* results) {
  if (on_device(stream)) return device::multi_reduce<K, Combine>(stream, sets, f, results);
  const std::vector<detail::Chunk> chunks = detail::chunks_of(sets);
  const auto count = static_cast<std::int64_t>(chunks.size());
  const Scratch<double> partial(stream, count * K);
  detail::for_chunks(
      sets, chunks, f, [&](const F& local, std::int64_t c, const detail::Chunk& chunk, const auto& set) {
        std::apply(
            [&](auto*... arrays) {
              detail::reduce_block<K, Combine>(
                  chunk.begin, chunk.end, [local, arrays...](std::int64_t i) { return local(arrays[i]...); },
                  partial.data() + c * K);
            },
            set.arrays);
      });
  detail::merge_blocks<K, Combine>(partial.data(), count, results);
}

}  // namespace qtrain
