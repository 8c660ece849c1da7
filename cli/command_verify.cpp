// qtrain verify: golden families against this build, tensor by tensor.
#include <fmt/format.h>

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/golden_compare.h"
#include "cli/model_setup.h"
#include "cli/module_run.h"
#include "quant/registry.h"

namespace qtrain::cli {
namespace {

using Outcome = CaseCheck::Outcome;

std::string_view word(Outcome outcome) {
  switch (outcome) {
    case Outcome::passed:
      return "ok";
    case Outcome::failed:
      return "FAILED";
    case Outcome::not_run:
      break;
  }
  return "NOT RUN";
}

// The largest share of its tolerance that any case used up for each tensor, and where.
struct Worst {
  TensorCheck check;
  std::string case_name;
};
std::map<std::string, Worst> worst_by_tensor(const FamilyCheck& family) {
  std::map<std::string, Worst> worst;
  for (const CaseCheck& one : family.cases)
    for (const TensorCheck& tensor : one.tensors) {
      const auto [place, is_new] = worst.try_emplace(tensor.name, Worst{tensor, one.name});
      if (!is_new && tensor.share() > place->second.check.share()) place->second = {tensor, one.name};
    }
  return worst;
}

std::string summary(const FamilyCheck& family) {
  const std::size_t failed = family.count(Outcome::failed);
  const std::size_t not_run = family.count(Outcome::not_run);
  std::string text =
      fmt::format("{} of {} cases within tolerance", family.count(Outcome::passed), family.cases.size());
  if (failed > 0) text += fmt::format(", {} out of tolerance", failed);
  if (not_run > 0) text += fmt::format(", {} not run", not_run);
  return text;
}

void print(const FamilyCheck& family) {
  std::cout << fmt::format("{} ({})\n", family.file, family.quantizer);
  std::size_t width = 0;
  for (const CaseCheck& one : family.cases) width = std::max(width, one.name.size());
  for (const CaseCheck& one : family.cases) {
    std::string line = fmt::format("  {:<7}  {:<{}}", word(one.outcome), one.name, width);
    if (one.outcome == Outcome::not_run) line += "  " + one.reason;
    for (const TensorCheck& tensor : one.tensors)
      line += fmt::format("  {} {:.1e}{}", tensor.name, tensor.error,
                          tensor.passes() ? "" : fmt::format(" > {:.1e}", tensor.tolerance));
    std::cout << line << "\n";
  }
  const std::map<std::string, Worst> totals = worst_by_tensor(family);
  if (!totals.empty()) std::cout << "  largest share of the tolerance used:\n";
  for (const auto& [name, worst] : totals)
    std::cout << fmt::format("    {:<12}  {:5.1f}%  {:.1e} of {:.1e}  in {}\n", name,
                             100 * worst.check.share(), worst.check.error, worst.check.tolerance,
                             worst.case_name);
  std::cout << "  " << summary(family) << "\n";
}

nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json("inf");
}

nlohmann::ordered_json to_json(const FamilyCheck& family) {
  nlohmann::ordered_json cases = nlohmann::ordered_json::array();
  for (const CaseCheck& one : family.cases) {
    nlohmann::ordered_json tensors = nlohmann::ordered_json::object();
    for (const TensorCheck& tensor : one.tensors)
      tensors[tensor.name] = {{"error", number(tensor.error)}, {"tolerance", tensor.tolerance}};
    const char* outcome =
        one.outcome == Outcome::passed ? "passed" : (one.outcome == Outcome::failed ? "failed" : "not run");
    nlohmann::ordered_json entry = {
        {"name", one.name}, {"role", one.role}, {"outcome", outcome}, {"tensors", tensors}};
    if (!one.reason.empty()) entry["reason"] = one.reason;
    cases.push_back(entry);
  }
  nlohmann::ordered_json worst = nlohmann::ordered_json::object();
  for (const auto& [name, entry] : worst_by_tensor(family))
    worst[name] = {{"share", number(entry.check.share())},
                   {"error", number(entry.check.error)},
                   {"case", entry.case_name}};
  return {{"file", family.file},
          {"quantizer", family.quantizer},
          {"passed", family.count(Outcome::passed)},
          {"failed", family.count(Outcome::failed)},
          {"not_run", family.count(Outcome::not_run)},
          {"worst", worst},
          {"cases", cases}};
}

}  // namespace

int run_verify(const VerifyOptions& options) {
  load_plugins(options.plugin);
  const Device device = parse_device(options.device);
  bool all_pass = true;
  nlohmann::ordered_json report = nlohmann::ordered_json::array();
  for (const std::string& file : options.families) {
    const FamilyCheck check = check_family(load_golden_family(file), device);
    all_pass = all_pass && check.passes();
    if (options.json) {
      report.push_back(to_json(check));
    } else {
      print(check);
    }
  }
  if (options.json) std::cout << report.dump(2) << "\n";
  return all_pass ? 0 : 1;
}

}  // namespace qtrain::cli
