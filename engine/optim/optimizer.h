// What all optimizers share: groups of parameters, the learning rate, and the state that checkpoints keep.
#pragma once

#include <memory>
#include <string_view>

#include "engine/core/named_tensor.h"

namespace qtrain {

// Parameters that share settings.
struct ParameterGroup {
  NamedTensors parameters;
  double learning_rate_factor = 1;  // on the optimizer's learning rate
  double weight_decay = 0;
};

class Optimizer {
 public:
  // ValueError for no parameters at all, a repeated name or tensor, or a negative or non-finite setting.
  Optimizer(std::vector<ParameterGroup> groups, double learning_rate);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  virtual std::string_view name() const = 0;

  // Updates every parameter that has a gradient, in place; the others, and their state, stay as they are.
  void step();
  void zero_grad();  // drops the gradients; touches no memory

  double learning_rate() const { return learning_rate_; }
  void set_learning_rate(double rate);
  const std::vector<ParameterGroup>& groups() const { return groups_; }

  // What has accumulated so far: `<state>.<parameter>` (like momentum_buffer.conv1.weight) and, as i64
  // scalars, `step.<parameter>`. Parameters not yet updated have none. The tensors share the optimizer's
  // elements.
  NamedTensors state() const;
  // The inverse, for an optimizer of the same kind over the same parameters. Copies; changes nothing unless
  // everything fits (ValueError).
  void load_state(const NamedTensors& state);

 protected:
  // All that an update of one parameter needs. Gradient and state have the parameter's shape.
  struct Update {
    const Tensor& parameter;
    const Tensor& gradient;
    const std::vector<Tensor>& state;  // in the order of state_names(); zeros before the first step
    std::int64_t step;                 // 1 at this parameter's first update
    double learning_rate;
    double weight_decay;
  };
  virtual std::vector<std::string_view> state_names() const = 0;
  virtual void update(const Update& u) = 0;

 private:
  struct Entry {
    std::string name;
    Tensor parameter;
    std::size_t group;
    std::int64_t step = 0;
    std::vector<Tensor> state;  // empty before the first step
  };

  std::vector<ParameterGroup> groups_;
  std::vector<Entry> entries_;
  double learning_rate_;
};

// Throws ValueError unless low <= value < high; NaN is refused. For options of optimizers.
void require_range(std::string_view optimizer, std::string_view option, double value, double low,
                   double high);

}  // namespace qtrain
