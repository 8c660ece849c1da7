// The bit-widths that one set of weights serves in turn (AdaBits), and which of the tensors kept for each is
// used at a given width.
#pragma once

#include <string>
#include <vector>

namespace qtrain::quant {

// What a width that is not in the list uses. 32 bits, where nothing is rounded, always use the first entry.
enum class OutsideList {
  refuse,
  first,  // the first entry: for layers whose width is raised above the network's, and as the reference does
};

class BitsList {
 public:
  // ValueError, naming `where`, unless there is at least one width, each 1 to 32, and none twice.
  BitsList(std::string where, std::vector<int> widths, OutsideList outside = OutsideList::refuse);

  const std::vector<int>& widths() const { return widths_; }
  std::size_t size() const { return widths_.size(); }
  // ValueError for a width outside the list that is refused.
  std::size_t entry_of(int bits) const;

 private:
  std::string where_;
  std::vector<int> widths_;
  OutsideList outside_;
};

}  // namespace qtrain::quant
