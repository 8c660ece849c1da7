#include "cli/count_progress.h"

#include <fmt/format.h>

#include <ostream>

namespace qtrain::cli {
namespace {

constexpr double terminal_interval = 0.1;  // seconds between updates of the line
constexpr double plain_interval = 10;      // seconds between plain lines

}  // namespace

CountProgress::CountProgress(Progress::Output output, std::string verb)
    : output_(std::move(output)), verb_(std::move(verb)), start_(output_.clock()), shown_at_(start_) {}

CountProgress::~CountProgress() {
  if (line_open_) *output_.stream << "\r\x1b[K" << std::flush;
}

void CountProgress::show(std::size_t done, std::size_t total) {
  const double now = output_.clock();
  if (now - shown_at_ < (output_.terminal ? terminal_interval : plain_interval)) return;
  shown_at_ = now;
  const double rate = static_cast<double>(done) / (now - start_);
  const std::string text =
      fmt::format("{} {}/{}  {}%  {:.0f} img/s  ETA {}", verb_, done, total, 100 * done / total, rate,
                  duration_text(static_cast<double>(total - done) / rate));
  if (output_.terminal) {
    // The last column stays free, since writing it makes some terminals start a new line.
    const int width = output_.width();
    *output_.stream << '\r' << text.substr(0, width > 0 ? static_cast<std::size_t>(width - 1) : text.size())
                    << "\x1b[K" << std::flush;
    line_open_ = true;
  } else {
    *output_.stream << text << std::endl;
  }
}

}  // namespace qtrain::cli
