#include "engine/optim/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"

namespace qtrain {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

[[noreturn]] void refuse(std::string what, std::string got, std::string expected, std::string hint = "") {
  throw ValueError({.where = "optimizer",
                    .what = std::move(what),
                    .got = std::move(got),
                    .expected = std::move(expected),
                    .hint = std::move(hint)});
}

}  // namespace

void require_range(std::string_view optimizer, std::string_view option, double value, double low,
                   double high) {
  if (!(value >= low && value < high))
    throw ValueError({.where = std::string(optimizer),
                      .what = fmt::format("{} is out of range", option),
                      .got = fmt::format("{}", value),
                      .expected = high == infinity ? fmt::format("a finite number, {} or more", low)
                                                   : fmt::format("{} or more and below {}", low, high),
                      .hint = ""});
}

Optimizer::Optimizer(std::vector<ParameterGroup> groups, double learning_rate)
    : groups_(std::move(groups)), learning_rate_(0) {
  set_learning_rate(learning_rate);
  std::unordered_set<std::string> names;
  std::unordered_set<const void*> tensors;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    require_range("optimizer", "weight_decay", groups_[g].weight_decay, 0, infinity);
    require_range("optimizer", "learning_rate_factor", groups_[g].learning_rate_factor, 0, infinity);
    for (const NamedTensor& p : groups_[g].parameters) {
      if (!p.tensor.defined() || p.tensor.dtype() != DType::f32)
        refuse("parameter '" + p.name + "' can't be trained", p.tensor.str(), "f32");
      if (!names.insert(p.name).second || !tensors.insert(p.tensor.raw()).second)
        refuse("a parameter was given twice", "'" + p.name + "'", "each once, in one group");
      if (!entries_.empty() && entries_.front().parameter.device() != p.tensor.device())
        throw DeviceError({.where = "optimizer",
                           .what = "parameters on different devices",
                           .got = "'" + p.name + "' on " + p.tensor.device().str(),
                           .expected = entries_.front().parameter.device().str(),
                           .hint = "one optimizer a device"});
      entries_.push_back({.name = p.name, .parameter = p.tensor, .group = g, .state = {}});
    }
  }
  if (entries_.empty()) refuse("nothing to optimize", "no parameters", "at least one");
}

void Optimizer::set_learning_rate(double rate) {
  require_range("optimizer", "learning_rate", rate, 0, infinity);
  learning_rate_ = rate;
}

void Optimizer::step() {
  prepare_step();
  apply();
}

void Optimizer::prepare_step() {
  write_rules();
  prepared_rate_ = learning_rate_;
}

void Optimizer::write_rules() {
  if (rule_ == nullptr) rule_ = make_rule();
  std::vector<std::byte> rules(entries_.size() * rule_->bytes());
  std::byte* place = rules.data();
  for (const Entry& e : entries_) {
    const ParameterGroup& group = groups_[e.group];
    rule_->write({.learning_rate = learning_rate_ * group.learning_rate_factor,
                  .weight_decay = group.weight_decay,
                  .step = e.steps() + 1},
                 place);
    place += rule_->bytes();
  }
  const Device device = entries_.front().parameter.device();
  if (!rules_.defined()) rules_ = Tensor::empty({static_cast<std::int64_t>(rules.size())}, DType::u8, device);
  Backend& b = backend(device);
  b.copy(b.stream(), rules_.raw(), rules.data(), rules.size(), CopyKind::host_to_device);
}

bool Optimizer::apply() {
  const NoGradGuard no_grad;
  bool repeats = prepared_rate_ == learning_rate_;
  if (!repeats) write_rules();
  prepared_rate_.reset();
  const std::size_t states = state_names().size();
  std::vector<Tensor> gradients;  // as long as the update refers to them
  gradients.reserve(entries_.size());
  std::vector<UpdateTensors> all;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& e = entries_[i];
    Tensor gradient = e.parameter.grad();
    if (!gradient.defined()) continue;
    for (; e.state.size() < states; repeats = false) e.state.push_back(Tensor::zeros_like(e.parameter));
    ++e.steps();
    gradients.push_back(std::move(gradient));
    all.push_back({.parameter = e.parameter,
                   .gradient = gradients.back(),
                   .state = e.state,
                   .rule = static_cast<std::int64_t>(i)});
  }
  if (all.empty()) return repeats;
  rule_->run(backend(entries_.front().parameter.device()).stream(), all, rules_.raw());
  for (const UpdateTensors& updated : all) {
    updated.parameter.bump_version();
    for (const Tensor& s : updated.state) s.bump_version();
  }
  return repeats;
}

std::vector<Tensor> Optimizer::counters() const {
  std::vector<Tensor> all;
  for (const Entry& e : entries_) all.push_back(e.counter);
  return all;
}

void Optimizer::zero_grad() {
  for (const Entry& e : entries_) e.parameter.set_grad({});
}

NamedTensors Optimizer::state() const {
  const std::vector<std::string_view> names = state_names();
  NamedTensors result;
  for (const Entry& e : entries_) {
    if (e.steps() == 0) continue;
    for (std::size_t s = 0; s < names.size(); ++s)
      result.push_back({fmt::format("{}.{}", names[s], e.name), e.state[s]});
    result.push_back({"step." + e.name, e.counter});
  }
  return result;
}

void Optimizer::load_state(const NamedTensors& state) {
  std::unordered_map<std::string_view, const Tensor*> given;
  for (const NamedTensor& t : state)
    if (!given.emplace(t.name, &t.tensor).second) refuse("saved state appears twice", "'" + t.name + "'", "");
  const std::vector<std::string_view> names = state_names();
  std::vector<Entry> loaded = entries_;
  std::size_t used = 0;
  const auto take = [&](const std::string& key, const Shape& shape, DType dtype) -> const Tensor& {
    const auto found = given.find(key);
    if (found == given.end())
      refuse(fmt::format("saved state lacks '{}'", key), "", fmt::format("the state of {}", name()));
    const Tensor& t = *found->second;
    if (!t.defined() || t.shape() != shape || t.dtype() != dtype)
      refuse(fmt::format("saved state '{}' doesn't fit", key), t.str(),
             fmt::format("{}{}", name_of(dtype), shape.str()));
    ++used;
    return t;
  };
  for (Entry& e : loaded) {
    e.counter = Tensor::zeros({}, DType::i64);  // not those of entries_, which may stay
    e.state.clear();
    const bool any = given.contains("step." + e.name) || std::ranges::any_of(names, [&](std::string_view n) {
                       return given.contains(fmt::format("{}.{}", n, e.name));
                     });
    if (!any) continue;
    e.steps() = take("step." + e.name, {}, DType::i64).values<std::int64_t>().front();
    if (e.steps() < 1) refuse("a saved step count is impossible", std::to_string(e.steps()), "1 or more");
    for (const std::string_view n : names) {
      Tensor copy = Tensor::empty_like(e.parameter);
      copy.copy_from(take(fmt::format("{}.{}", n, e.name), e.parameter.shape(), DType::f32));
      e.state.push_back(std::move(copy));
    }
  }
  if (used != given.size()) {
    std::unordered_set<std::string> known;
    for (const Entry& e : entries_) {
      known.insert("step." + e.name);
      for (const std::string_view n : names) known.insert(fmt::format("{}.{}", n, e.name));
    }
    const auto stranger =
        std::ranges::find_if(state, [&](const NamedTensor& t) { return !known.contains(t.name); });
    refuse("saved state of something else", "'" + stranger->name + "'",
           fmt::format("the state of {}", name()), "was it saved with another optimizer or model?");
  }
  entries_ = std::move(loaded);
  prepared_rate_.reset();
}

}  // namespace qtrain
