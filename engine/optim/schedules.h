// Learning-rate schedules: pure functions from the step to a factor on the learning rate.
//
// With step i from 0, W warm-up steps, T steps in all and progress t = min(1, (i - W) / (T - W)):
//   i < W        start + (1 - start) i / W
//   constant     1
//   multistep    gamma^(number of milestones <= i)                            milestones are steps from the
//   start cosine       final + (1 - final) (1 + cos(pi t)) / 2 linear       1 + (final - 1) t polynomial
//   final + (1 - final) (1 - t)^power exponential  gamma^((i - W) / period); period 0 stands for T - W; the
//   exponent is rounded down if `staircase`
// where final = lowest learning rate / learning rate.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace qtrain {

struct ScheduleOptions {
  std::string name = "cosine";
  std::int64_t total_steps = 0;  // T; not needed by constant, multistep, and exponential with a period
  std::int64_t warmup_steps = 0;
  double warmup_start = 0;  // the factor at step 0
  double final_factor = 0;
  std::vector<std::int64_t> milestones = {};
  double gamma = 0.1;
  double power = 1;
  std::int64_t period = 0;
  bool staircase = false;
};

using Schedule = std::function<double(std::int64_t step)>;

// "constant", "multistep", ...
const std::vector<std::string>& schedule_names();

// ValueError for an unknown name (with the nearest) or options out of range.
Schedule make_schedule(const ScheduleOptions& options);

}  // namespace qtrain
