// A rule of update_rules.h for all parameters of an optimizer in one pass over memory.
//
// The rule's numbers (the learning rate, Adam's bias corrections, ...) lie in memory of the parameters'
// device, one rule for each group of parameters that share them. So what changes from step to step is data of
// the pass and not a part of it, and a device graph can run the same pass again with other numbers.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>

#include "engine/core/tensor.h"
#include "engine/kernels/multi_update.h"

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
  std::int64_t group;             // index of its rule
};

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

// Runs the rule of an element's group: rule(parameter, state..., gradient).
template <class Rule>
struct StoredRule {
  const Rule* rules;
  Rule rule{};
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { rule = rules[group]; }
  template <class... Element>
  QTRAIN_HOST_DEVICE void operator()(Element&... elements) const {
    rule(elements...);
  }
};

template <class Rule, int states>
class FusedRuleOf final : public FusedRule {
 public:
  using Make = std::function<Rule(const UpdateSettings&)>;
  explicit FusedRuleOf(Make make) : make_(std::move(make)) {}

  std::size_t bytes() const override { return sizeof(Rule); }
  void write(const UpdateSettings& settings, void* to) const override {
    static_assert(std::is_trivially_copyable_v<Rule>);
    const Rule rule = make_(settings);
    std::memcpy(to, &rule, sizeof rule);
  }
  void run(const Stream& stream, std::span<const UpdateTensors> all, const void* rules) const override {
    TensorSets<states + 2> sets;
    for (const UpdateTensors& t : all) {
      TensorSet<states + 2> set{.count = t.parameter.numel(), .group = t.group};
      set.arrays.front() = t.parameter.data<float>();
      for (std::size_t s = 0; s < states; ++s) set.arrays[s + 1] = t.state[s].data<float>();
      set.arrays.back() = t.gradient.data<float>();
      sets.push_back(set);
    }
    multi_update(stream, sets, StoredRule<Rule>{static_cast<const Rule*>(rules)});
  }

 private:
  Make make_;
};

// `make` is called for every group in every step.
template <class Rule, int states>
std::unique_ptr<FusedRule> fused_rule(typename FusedRuleOf<Rule, states>::Make make) {
  return std::make_unique<FusedRuleOf<Rule, states>>(std::move(make));
}

}  // namespace qtrain
