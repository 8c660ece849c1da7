#include "layers/module.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <unordered_map>
#include <unordered_set>

#include "engine/core/error.h"

namespace qtrain {
namespace {

std::string join(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

}  // namespace

bool ChildPlace::put(std::shared_ptr<Module> module) {
  if (module == nullptr || !bind(module.get())) return false;
  module_ = std::move(module);
  return true;
}

// -------------------------------------------------------------------------------------------------
// registration

void Module::check_new_name(const std::string& name) const {
  const bool taken = std::ranges::any_of(members_, [&](const Member& m) { return m.name == name; }) ||
                     std::ranges::any_of(children_, [&](const auto& c) { return c->name() == name; });
  if (taken || name.empty() || name.find('.') != std::string::npos)
    throw ValueError({.where = "module",  // not kind(): the object is still being made
                      .what = taken ? "two members of the same name" : "not a name for a member",
                      .got = "'" + name + "'",
                      .expected = "a unique name without dots",
                      .hint = ""});
}

const Tensor& Module::add_member(std::string name, Tensor tensor, Role role) {
  check_new_name(name);
  members_.push_back({std::move(name), std::move(tensor), role});
  return members_.back().tensor;
}

const Tensor& Module::add_parameter(std::string name, Tensor tensor) {
  return add_member(std::move(name), std::move(tensor), Role::parameter);
}

const Tensor& Module::add_buffer(std::string name, Tensor tensor) {
  return add_member(std::move(name), std::move(tensor), Role::buffer);
}

void Module::replace_buffer(const Tensor& buffer, Tensor tensor) {
  const auto place = std::ranges::find_if(members_, [&](const Member& m) { return &m.tensor == &buffer; });
  if (place != members_.end()) place->tensor = std::move(tensor);
}

const Tensor& Module::add_counter(std::string name) {
  return add_member(std::move(name), Tensor::zeros({}, DType::i64), Role::counter);
}

void Module::note_change() {
  static std::atomic<std::uint64_t> changes{0};
  last_change_ = ++changes;
}

void Module::add_place(std::shared_ptr<ChildPlace> place, std::shared_ptr<Module> child) {
  check_new_name(place->name());
  if (!place->put(std::move(child)))
    throw ValueError({.where = place->name(),
                      .what = "not a module for this place",
                      .got = "",
                      .expected = std::string(place->required()),
                      .hint = ""});
  children_.push_back(std::move(place));
}

// ------------------------------------------------------------------------------------------------------ the
// tree

void Module::visit(const std::function<void(const std::string&, Module&)>& visitor) {
  const std::function<void(const std::string&, Module&)> walk = [&](const std::string& path, Module& parent) {
    for (const std::shared_ptr<ChildPlace>& place : parent.children_) {
      const std::shared_ptr<Module> visited = place->module();  // alive even if the visitor replaces it
      const std::string child_path = join(path, place->name());
      visitor(child_path, *visited);
      if (place->module() == visited) walk(child_path, *visited);
    }
  };
  visitor("", *this);
  walk("", *this);
}

ChildPlace& Module::place(std::string_view path) const {
  const Module* parent = this;
  std::string_view rest = path;
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    const auto found =
        std::ranges::find_if(parent->children_, [&](const auto& c) { return c->name() == name; });
    if (found == parent->children_.end()) {
      std::vector<std::string> names;
      for (const auto& c : parent->children_) names.push_back(c->name());
      throw ValueError({.where = parent->kind(),
                        .what = fmt::format("there is no module '{}'", path),
                        .got = fmt::format("'{}'", name),
                        .expected = fmt::format("one of: {}", fmt::join(names, ", ")),
                        .hint = suggest(name, names)});
    }
    if (dot == std::string_view::npos) return **found;
    parent = (*found)->module().get();
    rest.remove_prefix(dot + 1);
  }
}

std::shared_ptr<Module> Module::child(std::string_view path) const {
  return place(path).module();
}

void Module::replace_child(std::string_view path, std::shared_ptr<Module> module) {
  ChildPlace& there = place(path);
  if (module != nullptr) module->train(there.module()->is_training());
  const std::string got = module == nullptr ? "nothing" : module->kind();
  if (!there.put(std::move(module)))
    throw ValueError({.where = std::string(path),
                      .what = "not a module for this place",
                      .got = got,
                      .expected = std::string(there.required()),
                      .hint = ""});
  note_change();
}

std::string Module::summary() {
  std::string text;
  visit([&](const std::string& path, Module& module) {
    const auto depth = path.empty() ? 0 : 1 + std::ranges::count(path, '.');
    const std::string name = path.substr(path.rfind('.') + 1);
    std::int64_t own = 0;
    for (const Member& m : module.members_)
      if (m.role == Role::parameter && m.tensor.defined()) own += m.tensor.numel();
    text += fmt::format("{:{}}{}{}{}", "", 2 * depth, name, name.empty() ? "" : ": ", module.describe());
    if (own > 0) text += fmt::format("  [{} parameters]", own);
    text += '\n';
  });
  return text;
}

// --------------------------------------------------------------------------------------------- modes and
// devices

void Module::train(bool on) {
  visit([on](const std::string&, Module& module) { module.training_ = on; });
}

void Module::to(Device device) {
  std::unordered_map<const void*, Tensor> moved;  // a tensor shared by two modules stays shared
  visit([&](const std::string&, Module& module) {
    for (Member& m : module.members_) {
      if (!m.tensor.defined() || m.role == Role::counter || m.tensor.device() == device) continue;
      Tensor& target = moved[m.tensor.raw()];
      if (!target.defined()) {
        target = m.tensor.to(device);
        target.set_requires_grad(m.tensor.requires_grad());
      }
      m.tensor = target;
    }
    module.note_change();
  });
}

// -------------------------------------------------------------------------------------------------------
// tensors

struct Module::StateEntry {
  std::string name;
  Tensor tensor;
  Role role;
};

std::vector<Module::StateEntry> Module::state_entries() {
  std::vector<StateEntry> entries;
  visit([&](const std::string& path, Module& module) {
    for (const bool parameters : {true, false})
      for (const Member& m : module.members_)
        if (m.tensor.defined() && (m.role == Role::parameter) == parameters)
          entries.push_back({join(path, m.name), m.tensor, m.role});
  });
  return entries;
}

NamedTensors Module::named_parameters() {
  NamedTensors result;
  std::unordered_set<const void*> seen;
  for (StateEntry& e : state_entries())
    if (e.role == Role::parameter && seen.insert(e.tensor.raw()).second)
      result.push_back({std::move(e.name), std::move(e.tensor)});
  return result;
}

std::vector<Tensor> Module::parameters() {
  std::vector<Tensor> result;
  for (NamedTensor& p : named_parameters()) result.push_back(std::move(p.tensor));
  return result;
}

NamedTensors Module::named_buffers() {
  NamedTensors result;
  for (StateEntry& e : state_entries())
    if (e.role != Role::parameter) result.push_back({std::move(e.name), std::move(e.tensor)});
  return result;
}

std::vector<Tensor> Module::counters() {
  std::vector<Tensor> result;
  for (StateEntry& e : state_entries())
    if (e.role == Role::counter) result.push_back(std::move(e.tensor));
  return result;
}

std::int64_t Module::parameter_count() {
  std::int64_t count = 0;
  for (const Tensor& p : parameters()) count += p.numel();
  return count;
}

NamedTensors Module::state_dict() {
  NamedTensors result;
  for (StateEntry& e : state_entries()) result.push_back({std::move(e.name), std::move(e.tensor)});
  return result;
}

// -------------------------------------------------------------------------------------------------------
// loading

namespace {

// "3 missing (conv1.weight, bn1.weight, ...)", or "" for none.
std::string list_some(std::string_view label, const std::vector<std::string>& names) {
  constexpr std::size_t shown = 3;
  if (names.empty()) return "";
  const std::size_t n = std::min(shown, names.size());
  return fmt::format("{} {} ({}{})", names.size(), label,
                     fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(n), ", "),
                     names.size() > n ? ", ..." : "");
}

[[noreturn]] void throw_state_mismatch(const std::string& where, const LoadReport& report,
                                       const std::vector<std::string>& misfits, std::size_t expected) {
  std::vector<std::string> parts;
  for (std::string part : {list_some("missing", report.missing), list_some("unexpected", report.unexpected),
                           list_some("of another shape or type", misfits)})
    if (!part.empty()) parts.push_back(std::move(part));
  std::string hint = "is the file of another model?";
  if (!report.missing.empty() && !report.unexpected.empty())
    if (const std::string near = nearest_name(report.missing.front(), report.unexpected); !near.empty())
      hint = fmt::format("'{}' is nearest to the missing '{}'", near, report.missing.front());
  throw ValueError({.where = where,
                    .what = "the saved tensors don't fit the model",
                    .got = fmt::format("{}", fmt::join(parts, "; ")),
                    .expected = fmt::format("{} tensors by name and shape", expected),
                    .hint = hint});
}

}  // namespace

LoadReport Module::load_state_dict(const NamedTensors& state, bool strict) {
  std::unordered_map<std::string_view, const Tensor*> given;
  for (const NamedTensor& t : state)
    if (!t.tensor.defined() || !given.emplace(t.name, &t.tensor).second)
      throw ValueError({.where = kind(),
                        .what = "a saved tensor is undefined or appears twice",
                        .got = "'" + t.name + "'",
                        .expected = "",
                        .hint = ""});
  LoadReport report;
  std::vector<std::string> misfits;
  std::vector<std::pair<Tensor, const Tensor*>> copies;
  std::unordered_set<std::string> known;
  const std::vector<StateEntry> entries = state_entries();
  for (const StateEntry& e : entries) {
    known.insert(e.name);
    const auto found = given.find(e.name);
    if (found == given.end()) {
      if (e.role != Role::counter) report.missing.push_back(e.name);
    } else if (found->second->shape() != e.tensor.shape() || found->second->dtype() != e.tensor.dtype()) {
      misfits.push_back(fmt::format("{}: {} for {}", e.name, found->second->str(), e.tensor.str()));
    } else {
      copies.emplace_back(e.tensor, found->second);
    }
  }
  for (const NamedTensor& t : state)
    if (!known.contains(t.name)) report.unexpected.push_back(t.name);
  if (!misfits.empty() || (strict && !(report.missing.empty() && report.unexpected.empty())))
    throw_state_mismatch(kind(), report, misfits, entries.size());
  for (const auto& [to, from] : copies) to.copy_from(*from);
  visit([](const std::string&, Module& module) { module.note_change(); });  // counters may rule forward()
  report.loaded = copies.size();
  return report;
}

Tensor make_parameter(const Shape& shape) {
  Tensor t = Tensor::zeros(shape);
  t.set_requires_grad(true);
  return t;
}

}  // namespace qtrain
