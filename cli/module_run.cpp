#include "cli/module_run.h"

#include <fmt/format.h>

#include "engine/backend/backend.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

const Tensor& required(const TensorMap& tensors, const std::string& name, const std::string& where) {
  const auto found = tensors.find(name);
  if (found == tensors.end())
    throw FormatError(
        {where, fmt::format("no tensor '{}'", name), "", "x, and where wanted param.*, state.*, grad_y", ""});
  return found->second;
}

// Gives the module's tensors of one kind the values found under `prefix`.
void assign_state(Module& module, const NamedTensors& own, const TensorMap& given, const std::string& prefix,
                  const std::string& where) {
  std::vector<std::string> names;
  for (const NamedTensor& t : own) names.push_back(t.name);
  NamedTensors values;
  for (const auto& [name, tensor] : given) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw FormatError({where, fmt::format("'{}{}' is no tensor of {}", prefix, name, module.describe()), "",
                         names.empty() ? "none of that kind" : fmt::format("{}", fmt::join(names, ", ")),
                         suggest(name, names)});
    values.push_back({name, tensor});
  }
  module.load_state_dict(values, false);
}

// The gradient of a leaf; zeros where nothing depended on it.
Tensor gradient_of(const Tensor& leaf) {
  const Tensor grad = leaf.grad();
  return grad.defined() ? grad : Tensor::zeros_like(leaf);
}

}  // namespace

TensorMap with_prefix(const TensorMap& tensors, const std::string& prefix) {
  TensorMap chosen;
  for (auto t = tensors.lower_bound(prefix); t != tensors.end() && t->first.starts_with(prefix); ++t)
    chosen.emplace(t->first.substr(prefix.size()), t->second);
  return chosen;
}

Shape parameter_basis(const Tensor& x, quant::Role role) {
  if (role == quant::Role::weight || role == quant::Role::bias) return x.shape();
  return x.rank() == 4 ? Shape{1, x.dim(1), 1, 1} : Shape{1, x.rank() > 1 ? x.dim(1) : 1};
}

TensorMap run_module(Module& module, const TensorMap& tensors, bool training, Device device,
                     const std::string& where) {
  const bool differentiates = tensors.contains("grad_y");
  assign_state(module, module.named_parameters(), with_prefix(tensors, "param."), "param.", where);
  assign_state(module, module.named_buffers(), with_prefix(tensors, "state."), "state.", where);
  module.to(device);
  module.train(training);
  Tensor x = required(tensors, "x", where).clone().to(device);
  if (differentiates) x.set_requires_grad(true);

  const NamedTensors parameters = module.named_parameters();
  std::vector<std::uint64_t> versions;
  for (const NamedTensor& p : parameters) versions.push_back(p.tensor.storage_version());
  const Tensor y = module.forward(x);
  TensorMap results{{"y", y.detach()}};
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].tensor.storage_version() != versions[i])
      results["param_after." + parameters[i].name] = parameters[i].tensor.detach();
  for (const NamedTensor& t : module.named_buffers()) results["state_after." + t.name] = t.tensor;
  if (!differentiates) return results;

  const Tensor grad_y = tensors.at("grad_y").to(device);
  if (grad_y.shape() != y.shape() || grad_y.dtype() != y.dtype())
    throw ShapeError({where, "grad_y is not like y", grad_y.str(), y.str(), ""});
  // A module that hands x through leaves nothing on the tape.
  const bool passed_through = y.producer() == nullptr;
  if (!passed_through) Tape::backward(y, grad_y);
  results["grad_x"] = passed_through ? grad_y : gradient_of(x);
  for (const NamedTensor& p : parameters) results["grad." + p.name] = gradient_of(p.tensor);
  return results;
}

}  // namespace qtrain::cli
