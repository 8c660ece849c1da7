// Modules run one after the other, named 0, 1, 2, ... as in PyTorch.
#pragma once

#include "layers/module.h"

namespace qtrain {

class Sequential final : public Module {
 public:
  Sequential() = default;
  explicit Sequential(std::initializer_list<std::shared_ptr<Module>> modules) {
    for (const auto& module : modules) append(module);
  }

  Sequential& append(std::shared_ptr<Module> module) {
    steps_.push_back(add(std::to_string(steps_.size()), std::move(module)));
    return *this;
  }
  std::size_t size() const { return steps_.size(); }

  Tensor forward(const Tensor& x) override {
    Tensor y = x;
    for (const Slot<Module>& step : steps_) y = step(y);
    return y;
  }
  std::string kind() const override { return "Sequential"; }

 private:
  std::vector<Slot<Module>> steps_;
};

}  // namespace qtrain
