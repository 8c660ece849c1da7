// How the elements of groups are cut into parts, one for each block of threads.
#pragma once

#include <cstdint>

#include "engine/core/host_device.h"
#include "engine/kernels/functor.h"
#include "engine/kernels/grouping.h"

namespace qtrain::device {

// Elements of a group are numbered in the order of memory; a part is `reduction_block` of them.
class Parts {
 public:
  Parts(std::int64_t n, const Grouping& g)
      : inner_(g.inner),
        run_(g.inner > 1 ? g.run : n / g.outer),
        span_(n / g.outer),
        elements_(span_ / g.inner),
        per_group_((elements_ + reduction_block - 1) / reduction_block),
        groups_(g.groups()) {}

  std::int64_t count() const { return groups_ * per_group_; }
  QTRAIN_HOST_DEVICE std::int64_t groups() const { return groups_; }
  QTRAIN_HOST_DEVICE std::int64_t per_group() const { return per_group_; }
  // Parts of a group follow each other.
  QTRAIN_HOST_DEVICE std::int64_t group(std::int64_t part) const { return part / per_group_; }
  QTRAIN_HOST_DEVICE std::int64_t begin(std::int64_t part) const {
    return part % per_group_ * reduction_block;
  }
  QTRAIN_HOST_DEVICE std::int64_t end(std::int64_t part) const {
    const std::int64_t end = begin(part) + reduction_block;
    return end < elements_ ? end : elements_;
  }
  // Where element e of the group lies in memory.
  QTRAIN_HOST_DEVICE std::int64_t place(std::int64_t group, std::int64_t e) const {
    const std::int64_t start = group / inner_ * span_;
    if (inner_ == 1) return start + e;
    return start + (e / run_ * inner_ + group % inner_) * run_ + e % run_;
  }
  // Whether every group is one run of memory that starts at a multiple of `packet` elements.
  bool packed(std::int64_t packet) const { return inner_ == 1 && (groups_ == 1 || span_ % packet == 0); }

 private:
  std::int64_t inner_, run_;
  std::int64_t span_;      // elements from one outer group to the next
  std::int64_t elements_;  // of a group
  std::int64_t per_group_, groups_;
};

}  // namespace qtrain::device
