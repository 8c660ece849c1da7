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
// The tensors stay where they are. In one flat array for each kind they could do without the list, but
// backward hands over the gradients that it computed, and copying them there would cost a pass more than it
// saves.
//
// Every set is cut into chunks of `reduction_block` elements. Their results are what reduce() makes of a
// block, merged in double in the order of the sets: the same for any number of threads.
#pragma once

#include <span>
#include <tuple>
#include <vector>

#include "engine/kernels/grouped.h"

namespace qtrain {

// Arrays that belong together: a parameter, its gradient and its state, say. They don't overlap.
template <int N>
struct TensorSet {
  std::array<float*, N> arrays{};
  std::int64_t count = 0;  // elements of each of them
  std::int64_t group = 0;
};

template <int N>
using TensorSets = std::vector<TensorSet<N>>;

namespace detail {

struct Chunk {
  std::size_t set;
  std::int64_t begin, end;
};

template <int N>
std::vector<Chunk> chunks_of(const TensorSets<N>& sets) {
  std::vector<Chunk> chunks;
  for (std::size_t s = 0; s < sets.size(); ++s)
    for (std::int64_t begin = 0; begin < sets[s].count; begin += reduction_block)
      chunks.push_back({s, begin, std::min(begin + reduction_block, sets[s].count)});
  return chunks;
}

// Calls body(functor, chunk number, chunk, set) for all chunks, in parallel.
template <class F, int N, class Body>
void for_chunks(const TensorSets<N>& sets, const std::vector<Chunk>& chunks, const F& f, Body&& body) {
  std::int64_t elements = 0;
  for (const TensorSet<N>& set : sets) elements += set.count;
  const auto count = static_cast<std::int64_t>(chunks.size());
  const std::int64_t grain =
      std::max<std::int64_t>(1, map_grain * count / std::max<std::int64_t>(1, elements));
  parallel_for(count, grain, [&](std::int64_t first, std::int64_t last) {
    F local = f;
    std::int64_t prepared = -1;
    for (std::int64_t c = first; c < last; ++c) {
      const Chunk& chunk = chunks[static_cast<std::size_t>(c)];
      const TensorSet<N>& set = sets[chunk.set];
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

template <class F, int N>
void multi_update(const Stream& stream, const TensorSets<N>& sets, const F& f) {
  require_host(stream);
  detail::for_chunks(sets, detail::chunks_of(sets), f,
                     [](const F& local, std::int64_t, const detail::Chunk& chunk, const TensorSet<N>& set) {
                       std::apply([&](auto*... arrays) { detail::update_chunk(local, chunk, arrays...); },
                                  set.arrays);
                     });
}

template <int K, class Combine, class F, int N>
void multi_reduce(const Stream& stream, const TensorSets<N>& sets, const F& f, float* results) {
  require_host(stream);
  const std::vector<detail::Chunk> chunks = detail::chunks_of(sets);
  const auto count = static_cast<std::int64_t>(chunks.size());
  const Scratch<double> partial(stream, count * K);
  detail::for_chunks(
      sets, chunks, f,
      [&](const F& local, std::int64_t c, const detail::Chunk& chunk, const TensorSet<N>& set) {
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
