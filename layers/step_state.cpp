#include "layers/step_state.h"

#include <algorithm>

namespace qtrain {

bool is_steady(const Module& network) {
  return network.is_steady() && std::ranges::all_of(network.children(), [](const auto& place) {
           return is_steady(*place->module());
         });
}

std::uint64_t latest_change(const Module& network) {
  std::uint64_t latest = network.last_change();
  for (const auto& place : network.children()) latest = std::max(latest, latest_change(*place->module()));
  return latest;
}

void StepTraces::start() {
  counters_ = network_.counters();
  tensors_ = network_.parameters();
  for (NamedTensor& buffer : network_.named_buffers()) tensors_.push_back(std::move(buffer.tensor));
  before_.clear();
  for (const Tensor& c : counters_) before_.push_back(*c.data<std::int64_t>());
}

bool StepTraces::finish() {
  std::vector<std::int64_t> moves;
  for (std::size_t i = 0; i < counters_.size(); ++i)
    moves.push_back(*counters_[i].data<std::int64_t>() - before_[i]);
  std::swap(moves, moves_);
  return moves == moves_;
}

void StepTraces::replay() {
  for (std::size_t i = 0; i < counters_.size(); ++i) *counters_[i].data<std::int64_t>() += moves_[i];
  for (const Tensor& t : tensors_) t.bump_version();
}

}  // namespace qtrain
