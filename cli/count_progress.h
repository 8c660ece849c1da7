// The progress line of a command that goes through a number of images:
//   packed 1200/5000  24%  310 img/s  ETA 12s
#pragma once

#include <cstddef>
#include <string>

#include "cli/progress.h"

namespace qtrain::cli {

class CountProgress {
 public:
  CountProgress(Progress::Output output, std::string verb);
  ~CountProgress();  // clears the line of a terminal
  CountProgress(const CountProgress&) = delete;
  CountProgress& operator=(const CountProgress&) = delete;

  void show(std::size_t done, std::size_t total);
  double seconds() const { return output_.clock() - start_; }  // since it was made

 private:
  Progress::Output output_;
  std::string verb_;
  double start_;
  double shown_at_;
  bool line_open_ = false;
};

}  // namespace qtrain::cli
