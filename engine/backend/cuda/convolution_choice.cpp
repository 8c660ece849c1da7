#include "engine/backend/cuda/convolution_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "engine/backend/cuda/graph.h"
#include "engine/backend/cuda/runtime.h"
#include "engine/core/error.h"
#include "engine/kernels/parallel.h"

namespace qtrain::cuda {
namespace {

constexpr std::size_t most_measured = 10;
constexpr int repetitions = 3;

}  // namespace

bool ConvolutionChoices::run(const Stream& stream, const ConvolutionProblem& problem,
                             const ConvolutionPointers& pointers, bool autotune) {
  const bool may_measure = autotune && CudaGraphCapture::current() == nullptr;
  std::vector<std::int64_t> key = problem.key();
  const std::scoped_lock lock(mutex_);
  auto found = choices_.find(key);
  const bool known =
      found != choices_.end() && (found->second.measured || !may_measure || !found->second.plan);
  if (!known) {
    Choice choice = choose(stream, problem, pointers, may_measure);
    if (found != choices_.end()) replaced_.push_back(std::move(found->second));
    found = choices_.insert_or_assign(std::move(key), std::move(choice)).first;
  }
  if (!found->second.plan) return false;
  try {
    execute(stream, problem, pointers, *found->second.plan);
  } catch (const cudnn::Declined& declined) {
    fail("cudnn", "a plan", declined.what(), fmt::format("{}; {}", problem.str(), found->second.plan->str()));
  }
  return true;
}

void ConvolutionChoices::execute(const Stream& stream, const ConvolutionProblem& problem,
                                 const ConvolutionPointers& pointers, const ConvolutionPlan& plan) const {
  const Scratch<std::byte> workspace(stream, static_cast<std::int64_t>(plan.workspace_bytes()));
  plan.execute(handle_, problem, pointers, workspace.data());
}

ConvolutionChoices::Choice ConvolutionChoices::choose(const Stream& stream, const ConvolutionProblem& problem,
                                                      const ConvolutionPointers& pointers,
                                                      bool measure_them) const {
  const cudnn::Target target{.handle = &handle_};
  Choice choice;
  choice.problem = problem.str();
  choice.measured = measure_them;
  try {
    choice.graph = std::make_unique<ConvolutionGraph>(target, problem);
  } catch (const cudnn::Declined& declined) {
    choice.reason = declined.what();
    return choice;
  }
  std::vector<ConvolutionPlan> plans = convolution_plans(
      target, *choice.graph, problem,
      {.plans = measure_them ? most_measured : 1, .workspace_bytes = most_workspace_}, choice.reason);
  if (plans.empty()) return choice;
  std::size_t best = 0;
  choice.reason = "the first that cuDNN proposes";
  if (measure_them) {
    float first_time = 0;
    float best_time = std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < plans.size(); ++i) {
      const float time = measure(stream, problem, pointers, plans[i]);
      if (i == 0) first_time = time;
      if (time >= best_time) continue;
      best = i;
      best_time = time;
    }
    if (best_time == std::numeric_limits<float>::infinity()) {
      choice.reason = "no plan could be run";
      return choice;
    }
    choice.reason = fmt::format("{:.4f} ms, the fastest of {}; {:.4f} ms for the first that cuDNN proposes",
                                best_time, plans.size(), first_time);
  }
  choice.plan.emplace(std::move(plans[best]));
  return choice;
}

// Every run writes the whole result, so measuring on the real operands leaves nothing behind.
float ConvolutionChoices::measure(const Stream& stream, const ConvolutionProblem& problem,
                                  const ConvolutionPointers& pointers, const ConvolutionPlan& plan) const {
  const CudaEvent begin(CudaEvent::Kind::timing);
  const CudaEvent end(CudaEvent::Kind::timing);
  float best = std::numeric_limits<float>::infinity();
  try {
    execute(stream, problem, pointers, plan);  // loads its kernels
    for (int i = 0; i < repetitions; ++i) {
      begin.record(native(stream));
      execute(stream, problem, pointers, plan);
      end.record(native(stream));
      wait_for(end);
      best = std::min(best, end.milliseconds_since(begin));
    }
    return best;
  } catch (const cudnn::Declined&) {
  } catch (const IoError&) {  // its workspace doesn't fit beside the tensors
  }
  return std::numeric_limits<float>::infinity();
}

std::vector<std::string> ConvolutionChoices::report() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> lines;
  for (const auto& [key, choice] : choices_)
    lines.push_back(choice.plan ? fmt::format("{}: {}; {}", choice.problem, choice.plan->str(), choice.reason)
                                : fmt::format("{}: own kernels, because cuDNN declines: {}", choice.problem,
                                              choice.reason));
  return lines;
}

}  // namespace qtrain::cuda
