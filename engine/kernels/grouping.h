// How elements fall into groups that have parameters or statistics of their own.
#pragma once

#include <cstdint>

namespace qtrain {

// How n elements in memory order fall into groups: `outer` contiguous spans, and in each of them runs of
// `run` elements that belong to `inner` groups in turn.
//   whole tensor                       {}
//   G groups of output channels        {.outer = G}
//   samples                            {.outer = N}
//   G ranges of C channels             {.inner = G, .run = C / G}      (channels are innermost in memory)
//   each channel of each sample        {.outer = N, .inner = C, .run = 1}
struct Grouping {
  std::int64_t outer = 1;
  std::int64_t inner = 1;
  std::int64_t run = 0;  // needed where inner > 1
  std::int64_t groups() const { return outer * inner; }
};

}  // namespace qtrain
