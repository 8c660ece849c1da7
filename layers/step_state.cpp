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

std::vector<std::int64_t> settings(const Module& network) {
  std::vector<std::int64_t> all;
  const std::function<void(const Module&)> add_tree = [&](const Module& module) {
    module.add_settings(all);
    for (const auto& place : module.children()) add_tree(*place->module());
  };
  add_tree(network);
  return all;
}

void StepTraces::start() {
  counters_ = network_.counters();
  for (Tensor& steps : optimizer_.counters()) counters_.push_back(std::move(steps));
  tensors_ = network_.parameters();
  for (NamedTensor& buffer : network_.named_buffers()) tensors_.push_back(std::move(buffer.tensor));
  before_.clear();
  for (const Tensor& c : counters_) before_.push_back(*c.data<std::int64_t>());
}

std::vector<std::int64_t> StepTraces::finish() const {
  std::vector<std::int64_t> moves;
  for (std::size_t i = 0; i < counters_.size(); ++i)
    moves.push_back(*counters_[i].data<std::int64_t>() - before_[i]);
  return moves;
}

void StepTraces::replay(std::span<const std::int64_t> moves) {
  for (std::size_t i = 0; i < counters_.size(); ++i) *counters_[i].data<std::int64_t>() += moves[i];
  for (const Tensor& t : tensors_) t.bump_version();
}

}  // namespace qtrain
