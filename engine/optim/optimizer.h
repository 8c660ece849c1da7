// What all optimizers share: groups of parameters, the learning rate, and the state that checkpoints keep.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "engine/core/named_tensor.h"
#include "engine/optim/fused_rule.h"

namespace qtrain {

// Parameters that share settings.
struct ParameterGroup {
  NamedTensors parameters;
  double learning_rate_factor = 1;  // on the optimizer's learning rate
  double weight_decay = 0;
};

class Optimizer {
 public:
  // ValueError for no parameters at all, a repeated name or tensor, or a negative or non-finite setting;
  // DeviceError for parameters on several devices.
  Optimizer(std::vector<ParameterGroup> groups, double learning_rate);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  virtual std::string_view name() const = 0;

  // Updates every parameter that has a gradient, in place; the others, and their state, stay as they are.
  void step();

  // The two halves of step(), for a step whose device work is recorded once and then run again. Each
  // prepare_step() is followed by one apply(), or by one run of a recorded one.
  //
  // Before the step, never recorded: puts the numbers of this step, such as the learning rate, where the
  // update reads them.
  void prepare_step();
  // After backward(): the update itself. Returns whether it was prepared for this learning rate and made no
  // state; if not, the update is no less right, but must not be run again.
  bool apply();
  // How many steps each parameter has made: i64 scalars on the host, which apply() counts on, in the order of
  // the groups. Who runs a recorded update again counts on those of its parameters.
  std::vector<Tensor> counters() const;

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
  virtual std::vector<std::string_view> state_names() const = 0;
  // Made once, by the first step. Its states are those of state_names(), in that order.
  virtual std::unique_ptr<FusedRule> make_rule() const = 0;

 private:
  struct Entry {
    std::string name;
    Tensor parameter;
    std::size_t group;
    Tensor counter = Tensor::zeros({}, DType::i64);
    std::vector<Tensor> state;  // empty before the first step

    std::int64_t& steps() const { return *counter.data<std::int64_t>(); }
  };

  void write_rules();

  std::vector<ParameterGroup> groups_;
  std::vector<Entry> entries_;
  double learning_rate_;
  std::unique_ptr<FusedRule> rule_;
  // A rule for the next step of every parameter, whether it takes part or not: parameters rest while the
  // network doesn't use them, and then have made other numbers of steps. u8, on the parameters' device.
  Tensor rules_;
  std::optional<double> prepared_rate_;  // that they were written for, until they are applied
};

// Throws ValueError unless low <= value < high; NaN is refused. For options of optimizers.
void require_range(std::string_view optimizer, std::string_view option, double value, double low,
                   double high);

}  // namespace qtrain
