// A rule of update_rules.h for all parameters of an optimizer in one pass over memory.
//
// The rule's numbers (the learning rate, Adam's bias corrections, ...) lie in memory of the parameters'
// device, one rule for each parameter. So what changes from step to step is data of the pass and not a part
// of it, and a device graph can run the same pass again with other numbers.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "engine/core/tensor.h"

namespace qtrain {

// What the numbers of a rule are made from.
struct UpdateSettings {
  double learning_rate;
  double weight_decay;
  std::int64_t step;  // 1 at the first update of these parameters
};

// All that an update of one parameter needs. Gradient and state have the parameter's shape.
struct UpdateTensors {
  const Tensor& parameter;
  const Tensor& gradient;
  std::span<const Tensor> state;  // zeros before the first step
  std::int64_t rule;              // index of its rule
};

// fused_rule() of rule_pass.h makes one of a scalar rule.
class FusedRule {
 public:
  FusedRule() = default;
  FusedRule(const FusedRule&) = delete;
  FusedRule& operator=(const FusedRule&) = delete;
  virtual ~FusedRule() = default;

  virtual std::size_t bytes() const = 0;                                   // of one rule in memory
  virtual void write(const UpdateSettings& settings, void* to) const = 0;  // the rule, on the host
  // `rules`: on the stream's device, as write() made them.
  virtual void run(const Stream& stream, std::span<const UpdateTensors> all, const void* rules) const = 0;
};

}  // namespace qtrain
