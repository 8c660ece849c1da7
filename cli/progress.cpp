#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>

namespace qtrain::cli {
namespace {

constexpr double fading = 0.97;              // a step is half forgotten after 23 more
constexpr double terminal_interval = 0.1;    // seconds between updates of the line
constexpr double plain_interval = 10;        // seconds between plain lines
constexpr double evaluation_share = 1. / 3;  // a forward pass of a training step, until one has been timed

int terminal_width() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The fields joined; where room is short, those that `expendable` numbers go, in its order. The terminal's
// last column stays free, since writing it makes some terminals start a new line.
std::string fitted(std::vector<std::string> fields, const std::vector<std::size_t>& expendable, int width) {
  const auto joined = [&] {
    std::string text;
    for (const std::string& field : fields)
      if (!field.empty()) text += (text.empty() ? "" : "  ") + field;
    return text;
  };
  const std::size_t room = width > 0 ? static_cast<std::size_t>(width) - 1 : std::string::npos;
  for (auto next = expendable.begin(); next != expendable.end() && joined().size() > room; ++next)
    fields[*next].clear();
  return joined().substr(0, room);
}

}  // namespace

Progress::Output Progress::standard_output(std::int64_t log_interval) {
  const char* kind = std::getenv("TERM");
  const bool dumb = kind == nullptr || std::string(kind) == "dumb";
  return {&std::cout, ::isatty(STDOUT_FILENO) == 1 && !dumb, terminal_width, steady_seconds, log_interval};
}

Progress::Progress(Output output, const RunPlan& plan, std::int64_t evaluations_done)
    : output_(std::move(output)), plan_(plan), evaluations_done_(evaluations_done) {}

Progress::~Progress() {
  if (line_open_) *output_.stream << std::endl;
}

void Progress::step(const StepProgress& now) {
  now_ = now;
  evaluating_ = false;
  running_evaluation_ = 0;
  // The first step sets everything up and says nothing about the others: the second one replaces it.
  const double keep = ++seen_ == 2 ? 0 : fading;
  steps_ = keep * steps_ + 1;
  images_ = keep * images_ + static_cast<double>(now.images);
  seconds_ = keep * seconds_ + now.seconds;
  wait_ = keep * wait_ + now.wait_seconds;
  if (!due(now.step)) return;
  const double rate = images_per_second();
  show({fmt::format("epoch {}/{}", now.epoch, plan_.epochs),
        fmt::format("step {}/{}", now.step_in_epoch, plan_.steps_per_epoch),
        fmt::format("loss {:.3f}", now.loss), fmt::format("top-1 {:.1f}%", 100 * now.top1),
        fmt::format("{:.{}f} img/s", rate, rate < 10 ? 1 : 0),
        fmt::format("wait {:.0f}%", 100 * wait_share()), eta_text()},
       {5, 4, 6, 3, 2, 1});
}

void Progress::evaluation(std::int64_t batch, double seconds) {
  evaluating_ = true;
  const auto batches = static_cast<double>(plan_.evaluation_batches);
  const auto done = static_cast<double>(batch);
  running_evaluation_ = done > 0 ? seconds / done * std::max(0., batches - done) : 0;
  if (batch >= plan_.evaluation_batches) {
    evaluation_seconds_ = seconds;
    evaluating_ = false;
    ++evaluations_done_;
  }
  if (!output_.terminal || !due(0)) return;
  show({fmt::format("epoch {}/{}", now_.epoch, plan_.epochs),
        fmt::format("evaluating {}/{}", batch, plan_.evaluation_batches), eta_text()},
       {2, 1});
}

void Progress::line(const std::string& text) {
  if (line_open_) *output_.stream << "\r\x1b[K";
  line_open_ = false;
  *output_.stream << text << std::endl;
}

double Progress::images_per_second() const {
  return seconds_ > 0 ? images_ / seconds_ : 0;
}

double Progress::wait_share() const {
  return seconds_ > 0 ? std::clamp(wait_ / seconds_, 0., 1.) : 0;
}

double Progress::eta_seconds() const {
  const double step_seconds = steps_ > 0 ? seconds_ / steps_ : 0;
  const auto steps_left = static_cast<double>(std::max<std::int64_t>(0, plan_.total_steps - now_.step));
  const auto evaluations_left = static_cast<double>(
      std::max<std::int64_t>(0, plan_.evaluations - evaluations_done_ - (evaluating_ ? 1 : 0)));
  const double one_evaluation = evaluation_seconds_ > 0 ? evaluation_seconds_
                                                        : evaluation_share * step_seconds *
                                                              static_cast<double>(plan_.evaluation_batches);
  return steps_left * step_seconds + evaluations_left * one_evaluation +
         (evaluating_ ? running_evaluation_ : 0);
}

std::string Progress::eta_text() const {
  return "ETA " + duration_text(eta_seconds());
}

bool Progress::due(std::int64_t step) {
  const bool by_steps = !output_.terminal && output_.log_interval > 0;
  const double now = by_steps ? 0 : output_.clock();
  const double interval = output_.terminal ? terminal_interval : plain_interval;
  if (by_steps ? step % output_.log_interval != 0 : shown_before_ && now - shown_at_ < interval) return false;
  shown_before_ = true;
  shown_at_ = now;
  return true;
}

void Progress::show(const std::vector<std::string>& fields, const std::vector<std::size_t>& expendable) {
  if (!output_.terminal) {
    *output_.stream << fitted(fields, {}, 0) << std::endl;
    return;
  }
  const int width = output_.width ? output_.width() : 0;
  *output_.stream << "\r" << fitted(fields, expendable, width) << "\x1b[K" << std::flush;
  line_open_ = true;
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto total = static_cast<std::int64_t>(std::llround(std::min(seconds, 1e12)));
  if (total < 60) return fmt::format("{}s", total);
  if (total < 3600) return fmt::format("{}m{:02}s", total / 60, total % 60);
  if (total < 86400) return fmt::format("{}h{:02}m", total / 3600, total / 60 % 60);
  return fmt::format("{}d{:02}h", total / 86400, total / 3600 % 24);
}

}  // namespace qtrain::cli
