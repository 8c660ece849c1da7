// The pass over memory that a scalar rule makes: rule(parameter, state..., gradient).
#pragma once

#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#include "engine/kernels/multi_update.h"
#include "engine/optim/fused_rule.h"

namespace qtrain {

// Runs the rule of an element's parameter, which is a group of its own.
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

template <class Rule, class States>
class RulePass;
template <class Rule, std::size_t... state>
class RulePass<Rule, std::index_sequence<state...>> final : public FusedRule {
 public:
  using Make = std::function<Rule(const UpdateSettings&)>;
  explicit RulePass(Make make) : make_(std::move(make)) {}

  std::size_t bytes() const override { return sizeof(Rule); }
  void write(const UpdateSettings& settings, void* to) const override {
    static_assert(std::is_trivially_copyable_v<Rule>);
    const Rule rule = make_(settings);
    std::memcpy(to, &rule, sizeof rule);
  }
  void run(const Stream& stream, std::span<const UpdateTensors> all, const void* rules) const override {
    TensorSets<float, typename Float<state>::type..., const float> sets;
    for (const UpdateTensors& t : all)
      sets.push_back({.arrays = {t.parameter.data<float>(), t.state[state].template data<float>()...,
                                 t.gradient.data<float>()},
                      .count = t.parameter.numel(),
                      .group = t.rule});
    multi_update(stream, sets, StoredRule<Rule>{static_cast<const Rule*>(rules)});
  }

 private:
  template <std::size_t>
  struct Float {  // one for each state
    using type = float;
  };

  Make make_;
};

// `make` is called for every parameter in every step.
template <class Rule, std::size_t states>
std::unique_ptr<FusedRule> fused_rule(std::function<Rule(const UpdateSettings&)> make) {
  return std::make_unique<RulePass<Rule, std::make_index_sequence<states>>>(std::move(make));
}

}  // namespace qtrain
