#include "cli/golden_compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cli/golden_roles.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

constexpr double no_agreement = std::numeric_limits<double>::infinity();

// In the role `init` parameters are what is asked for; in `project` gradients are given.
bool is_input(const std::string& name, const std::string& role) {
  return name == "x" || name == "grad_y" || (name.starts_with("param.") && role != "init") ||
         name.starts_with("state.") || (name.starts_with("grad.") && role == "project");
}

double difference(float computed, float reference) {
  if (computed == reference || (std::isnan(computed) && std::isnan(reference))) return 0;
  const double error = std::abs(static_cast<double>(computed) - static_cast<double>(reference));
  return std::isnan(error) ? no_agreement : error;
}

CaseCheck check_case(const GoldenFamily& family, const GoldenCase& golden, Device device) {
  using Outcome = CaseCheck::Outcome;
  CaseCheck check{
      .name = golden.name, .role = golden.role, .outcome = Outcome::passed, .reason = "", .tensors = {}};
  check.reason = why_not_run(family, golden);
  if (!check.reason.empty()) {
    check.outcome = Outcome::not_run;
    return check;
  }
  TensorMap computed;
  try {
    computed = run_golden_case(family, golden, device);
  } catch (const Error& error) {
    check.outcome = Outcome::stopped;
    check.reason = error.what();
    return check;
  }
  for (const auto& [name, reference] : golden.tensors) {
    if (is_input(name, golden.role)) continue;
    const auto found = computed.find(name);
    check.tensors.push_back(
        check_tensor(name, found == computed.end() ? Tensor() : found->second, reference));
    if (!check.tensors.back().passes()) check.outcome = Outcome::failed;
  }
  if (check.tensors.empty()) {
    check.outcome = Outcome::stopped;
    check.reason = "the case has no tensor to compare with";
  }
  return check;
}

}  // namespace

std::size_t FamilyCheck::count(CaseCheck::Outcome outcome) const {
  return static_cast<std::size_t>(std::count_if(
      cases.begin(), cases.end(), [&](const CaseCheck& one) { return one.outcome == outcome; }));
}

TensorCheck check_tensor(const std::string& name, const Tensor& computed, const Tensor& reference) {
  const std::vector<float> expected = reference.values();
  double largest = 0;
  for (const float value : expected)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(static_cast<double>(value)));
  const double unit = name.starts_with("grad.") ? 2 : 1;
  TensorCheck check{.name = name, .error = 0, .tolerance = unit * (1e-5 + 1e-4 * largest)};
  if (!computed.defined() || computed.dtype() != DType::f32 || computed.shape() != reference.shape()) {
    check.error = no_agreement;
    return check;
  }
  const std::vector<float> actual = computed.values();
  for (std::size_t i = 0; i < expected.size(); ++i)
    check.error = std::max(check.error, difference(actual[i], expected[i]));
  return check;
}

FamilyCheck check_family(const GoldenFamily& family, Device device) {
  FamilyCheck check{.file = family.file, .quantizer = family.quantizer, .cases = {}};
  for (const GoldenCase& golden : family.cases) check.cases.push_back(check_case(family, golden, device));
  return check;
}

}  // namespace qtrain::cli
