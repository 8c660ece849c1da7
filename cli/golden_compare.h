// Compares what was computed for golden cases with what the reference computed. The tolerance of a tensor
// depends on its largest reference value: 1e-5 + 1e-4 max|ref|, and 2e-5 + 2e-4 max|ref| for gradients of
// parameters, which are sums with cancellation.
#pragma once

#include "cli/golden_family.h"

namespace qtrain::cli {

struct TensorCheck {
  std::string name;
  double error = 0;  // largest |computed - reference|; infinite where shapes differ or only one side is NaN
  double tolerance = 0;
  bool passes() const { return error <= tolerance; }
  double share() const { return error / tolerance; }
};

struct CaseCheck {
  enum class Outcome {
    passed,
    failed,   // a tensor is out of tolerance
    stopped,  // by an error
    not_run,  // nothing in this build runs it: an unknown quantizer or role
  };
  std::string name;
  std::string role;
  Outcome outcome = Outcome::passed;
  std::string reason;  // why it was stopped or not run
  std::vector<TensorCheck> tensors;
};

struct FamilyCheck {
  std::string file;
  std::string quantizer;
  std::vector<CaseCheck> cases;
  std::size_t count(CaseCheck::Outcome outcome) const;
  bool passes() const { return count(CaseCheck::Outcome::passed) == cases.size(); }  // every case was run
};

TensorCheck check_tensor(const std::string& name, const Tensor& computed, const Tensor& reference);

// Runs every case that something here runs.
FamilyCheck check_family(const GoldenFamily& family, Device device);

}  // namespace qtrain::cli
