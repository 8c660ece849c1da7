// qtrain verify: golden families against this build, tensor by tensor.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "cli/commands.h"
#include "cli/device_setup.h"
#include "cli/golden_compare.h"
#include "cli/model_setup.h"
#include "cli/module_run.h"
#include "quant/registry.h"

namespace qtrain::cli {
namespace {

using Outcome = CaseCheck::Outcome;
constexpr std::array<Outcome, 4> outcomes = {Outcome::passed, Outcome::failed, Outcome::stopped,
                                             Outcome::not_run};

constexpr int status_wrong = 1;
constexpr int status_incomplete = 3;

// As they are called in JSON and at the head of a table's columns.
std::string_view word(Outcome outcome) {
  constexpr std::array<std::string_view, outcomes.size()> words = {"passed", "failed", "stopped", "not run"};
  return words[static_cast<std::size_t>(outcome)];
}

std::string errors_of(const CaseCheck& one) {
  std::string text;
  for (const TensorCheck& tensor : one.tensors)
    text += fmt::format("  {} {:.1e}{}", tensor.name, tensor.error,
                        tensor.passes() ? "" : fmt::format(" > {:.1e}", tensor.tolerance));
  return text;
}

// The tensor that used up the largest share of its tolerance, and where.
struct Worst {
  TensorCheck check;
  std::string case_name;
};

// What cases came to: a row of a table.
struct Tally {
  std::array<std::size_t, outcomes.size()> counts{};
  std::optional<Worst> worst;

  void add(const CaseCheck& one) {
    ++counts[static_cast<std::size_t>(one.outcome)];
    for (const TensorCheck& tensor : one.tensors)
      if (!worst || tensor.share() > worst->check.share()) worst = Worst{tensor, one.name};
  }
  std::size_t count(Outcome outcome) const { return counts[static_cast<std::size_t>(outcome)]; }
  std::size_t cases() const { return std::accumulate(counts.begin(), counts.end(), std::size_t{0}); }
  int status() const {
    if (count(Outcome::failed) + count(Outcome::stopped) > 0) return status_wrong;
    return count(Outcome::not_run) > 0 ? status_incomplete : 0;
  }
  std::string summary() const {
    std::string text = fmt::format("{} of {} cases within tolerance", count(Outcome::passed), cases());
    if (count(Outcome::failed) > 0) text += fmt::format(", {} out of tolerance", count(Outcome::failed));
    if (count(Outcome::stopped) > 0) text += fmt::format(", {} stopped by errors", count(Outcome::stopped));
    if (count(Outcome::not_run) > 0) text += fmt::format(", {} not run", count(Outcome::not_run));
    return text;
  }
};

using Rows = std::vector<std::pair<std::string, Tally>>;

Tally& row_of(Rows& rows, const std::string& name) {
  const auto found = std::ranges::find(rows, name, &Rows::value_type::first);
  return found != rows.end() ? found->second : rows.emplace_back(name, Tally{}).second;
}

template <class Key>
Rows tally(const FamilyCheck& family, Key&& key) {
  Rows rows;
  for (const CaseCheck& one : family.cases) row_of(rows, key(one)).add(one);
  return rows;
}

void print_table(std::string_view head, const Rows& rows) {
  std::size_t width = head.size();
  for (const auto& [name, tally] : rows) width = std::max(width, name.size());
  std::cout << fmt::format("  {:<{}}  {:>5}", head, width, "cases");
  for (const Outcome outcome : outcomes) std::cout << fmt::format("  {:>7}", word(outcome));
  std::cout << "  most of the tolerance used\n";
  for (const auto& [name, tally] : rows) {
    std::cout << fmt::format("  {:<{}}  {:>5}", name, width, tally.cases());
    for (const std::size_t count : tally.counts) std::cout << fmt::format("  {:>7}", count);
    if (tally.worst)
      std::cout << fmt::format("  {:.1f}%  {} of {}", 100 * tally.worst->check.share(),
                               tally.worst->check.name, tally.worst->case_name);
    std::cout << "\n";
  }
}

void print_cases(const FamilyCheck& family, bool all) {
  std::size_t width = 0;
  for (const CaseCheck& one : family.cases) width = std::max(width, one.name.size());
  std::map<std::string, std::size_t> reasons;
  for (const CaseCheck& one : family.cases) {
    if (one.outcome == Outcome::not_run) ++reasons[one.reason];
    if (one.outcome == Outcome::failed || one.outcome == Outcome::stopped || all)
      std::cout << fmt::format("  {:<7}  {:<{}}{}{}\n", word(one.outcome), one.name, width,
                               one.reason.empty() ? "" : "  " + one.reason, errors_of(one));
  }
  for (const auto& [reason, count] : reasons) std::cout << fmt::format("  {} not run: {}\n", count, reason);
}

void print(const FamilyCheck& family, const Tally& total, bool all_cases) {
  std::cout << fmt::format("{} ({})\n", family.file, family.quantizer);
  print_table("role", tally(family, [](const CaseCheck& one) { return one.role; }));
  print_cases(family, all_cases);
  std::cout << fmt::format("  {}\n\n", total.summary());
}

nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json("inf");
}

void add_counts(nlohmann::ordered_json& json, const Tally& tally) {
  json["passed"] = tally.count(Outcome::passed);
  json["failed"] = tally.count(Outcome::failed);
  json["stopped"] = tally.count(Outcome::stopped);
  json["not_run"] = tally.count(Outcome::not_run);
}

nlohmann::ordered_json case_json(const CaseCheck& one) {
  nlohmann::ordered_json tensors = nlohmann::ordered_json::object();
  for (const TensorCheck& tensor : one.tensors)
    tensors[tensor.name] = {{"error", number(tensor.error)}, {"tolerance", tensor.tolerance}};
  nlohmann::ordered_json json = {
      {"name", one.name}, {"role", one.role}, {"outcome", word(one.outcome)}, {"tensors", tensors}};
  if (!one.reason.empty()) json["reason"] = one.reason;
  return json;
}

nlohmann::ordered_json family_json(const FamilyCheck& family, const Tally& total) {
  nlohmann::ordered_json json = {{"file", family.file}, {"quantizer", family.quantizer}};
  add_counts(json, total);
  std::map<std::string, Worst> worst;
  for (const CaseCheck& one : family.cases)
    for (const TensorCheck& tensor : one.tensors) {
      const auto [place, is_new] = worst.try_emplace(tensor.name, Worst{tensor, one.name});
      if (!is_new && tensor.share() > place->second.check.share()) place->second = {tensor, one.name};
    }
  json["worst"] = nlohmann::ordered_json::object();
  for (const auto& [name, entry] : worst)
    json["worst"][name] = {{"share", number(entry.check.share())},
                           {"error", number(entry.check.error)},
                           {"case", entry.case_name}};
  json["cases"] = nlohmann::ordered_json::array();
  for (const CaseCheck& one : family.cases) json["cases"].push_back(case_json(one));
  return json;
}

}  // namespace

int run_verify(const VerifyOptions& options) {
  load_plugins(options.plugin);
  const Device device = choose_device(options.device);
  Rows totals;
  Tally all;
  nlohmann::ordered_json families = nlohmann::ordered_json::array();
  for (const std::string& file : golden_files(options.families)) {
    const FamilyCheck check = check_family(load_golden_family(file), device);
    Tally total;
    for (const CaseCheck& one : check.cases) {
      total.add(one);
      all.add(one);
      row_of(totals, check.quantizer).add(one);
    }
    if (options.json) {
      families.push_back(family_json(check, total));
    } else {
      print(check, total, options.cases);
    }
  }
  if (options.json) {
    nlohmann::ordered_json report = {{"families", families}, {"total", {{"cases", all.cases()}}}};
    add_counts(report["total"], all);
    std::cout << report.dump(2) << "\n";
  } else {
    if (totals.size() > 1) {
      totals.emplace_back("total", all);
      print_table("family", totals);
    }
    std::cout << all.summary() << "\n";
  }
  return all.status();
}

}  // namespace qtrain::cli
