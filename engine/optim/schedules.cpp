#include "engine/optim/schedules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/core/error.h"

namespace qtrain {
namespace {

using Options = ScheduleOptions;

// i - W, 0 during warm-up.
std::int64_t after_warmup(const Options& o, std::int64_t step) {
  return std::max<std::int64_t>(0, step - o.warmup_steps);
}

double progress(const Options& o, std::int64_t step) {
  const auto span = static_cast<double>(o.total_steps - o.warmup_steps);
  return std::min(1.0, static_cast<double>(after_warmup(o, step)) / span);
}

double constant(const Options&, std::int64_t) {
  return 1;
}

double multistep(const Options& o, std::int64_t step) {
  const auto passed = std::ranges::count_if(o.milestones, [step](std::int64_t m) { return m <= step; });
  return std::pow(o.gamma, static_cast<double>(passed));
}

double cosine(const Options& o, std::int64_t step) {
  return o.final_factor + (1 - o.final_factor) * (1 + std::cos(std::numbers::pi * progress(o, step))) / 2;
}

double linear(const Options& o, std::int64_t step) {
  return 1 + (o.final_factor - 1) * progress(o, step);
}

double polynomial(const Options& o, std::int64_t step) {
  return o.final_factor + (1 - o.final_factor) * std::pow(1 - progress(o, step), o.power);
}

double exponential(const Options& o, std::int64_t step) {
  const std::int64_t period = o.period > 0 ? o.period : o.total_steps - o.warmup_steps;
  const double exponent = static_cast<double>(after_warmup(o, step)) / static_cast<double>(period);
  return std::pow(o.gamma, o.staircase ? std::floor(exponent) : exponent);
}

struct Named {
  std::string name;
  double (*factor)(const Options&, std::int64_t step);
};

const std::vector<Named>& all() {
  static const std::vector<Named> schedules{{"constant", constant},     {"multistep", multistep},
                                            {"cosine", cosine},         {"linear", linear},
                                            {"polynomial", polynomial}, {"exponential", exponential}};
  return schedules;
}

void require(bool holds, std::string_view what, const std::string& got, std::string_view expected) {
  if (!holds)
    throw ValueError({.where = "schedule",
                      .what = fmt::format("{} is out of range", what),
                      .got = got,
                      .expected = std::string(expected),
                      .hint = ""});
}

void check(const Options& o) {
  const auto number = [](auto v) { return fmt::format("{}", v); };
  const auto finite_from_0 = [](double v) { return v >= 0 && std::isfinite(v); };
  require(o.warmup_steps >= 0, "warmup_steps", number(o.warmup_steps), "0 or more");
  require(finite_from_0(o.warmup_start), "warmup_start", number(o.warmup_start), "0 or more");
  require(finite_from_0(o.final_factor), "final_factor", number(o.final_factor), "0 or more");
  require(finite_from_0(o.gamma), "gamma", number(o.gamma), "0 or more");
  require(finite_from_0(o.power), "power", number(o.power), "0 or more");
  require(o.period >= 0, "period", number(o.period), "0 or more");
  const bool endless =
      o.name == "constant" || o.name == "multistep" || (o.name == "exponential" && o.period > 0);
  require(endless || o.total_steps > o.warmup_steps, "total_steps", number(o.total_steps),
          "more than the warm-up steps, " + number(o.warmup_steps));
}

}  // namespace

const std::vector<std::string>& schedule_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const Named& s : all()) result.push_back(s.name);
    return result;
  }();
  return names;
}

Schedule make_schedule(const ScheduleOptions& options) {
  const auto found = std::ranges::find(all(), options.name, &Named::name);
  if (found == all().end())
    throw ValueError({.where = "schedule",
                      .what = "unknown schedule",
                      .got = "'" + options.name + "'",
                      .expected = fmt::format("one of: {}", fmt::join(schedule_names(), ", ")),
                      .hint = suggest(options.name, schedule_names())});
  check(options);
  return [options, factor = found->factor](std::int64_t step) {
    if (step >= options.warmup_steps) return factor(options, step);
    const double rising = static_cast<double>(step) / static_cast<double>(options.warmup_steps);
    return options.warmup_start + (1 - options.warmup_start) * rising;
  };
}

}  // namespace qtrain
