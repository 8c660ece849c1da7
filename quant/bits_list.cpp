#include "quant/bits_list.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "engine/core/error.h"
#include "quant/quantizer.h"

namespace qtrain::quant {

BitsList::BitsList(std::string where, std::vector<int> widths, OutsideList outside)
    : where_(std::move(where)), widths_(std::move(widths)), outside_(outside) {
  const bool all_exist =
      std::ranges::all_of(widths_, [](int bits) { return bits >= 1 && bits <= float_bits; });
  const bool differ = std::set<int>(widths_.begin(), widths_.end()).size() == widths_.size();
  if (widths_.empty() || !all_exist || !differ)
    throw ValueError({.where = where_,
                      .what = "no list of bit-widths",
                      .got = fmt::format("{}", fmt::join(widths_, ",")),
                      .expected = "different numbers from 1 to 32, such as 8,6,5,4",
                      .hint = ""});
}

std::size_t BitsList::entry_of(int bits) const {
  const auto found = std::ranges::find(widths_, bits);
  if (found != widths_.end()) return static_cast<std::size_t>(found - widths_.begin());
  if (bits < float_bits && outside_ == OutsideList::refuse)
    throw ValueError({.where = where_,
                      .what = fmt::format("nothing was trained for {} bits", bits),
                      .got = "",
                      .expected = fmt::format("one of {}", fmt::join(widths_, ", ")),
                      .hint = "name the bit-width in bits_list"});
  return 0;
}

}  // namespace qtrain::quant
