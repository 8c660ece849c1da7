// What a run says at its start and at its end.
#pragma once

#include <string>

#include "cli/run_folder.h"
#include "cli/session.h"
#include "cli/training_loop.h"

namespace qtrain::cli {

// Several lines each, without an end of line at the end.
std::string header_text(const Session& session, const RunFolder& folder, const RunState& state);
std::string summary_text(const Session& session, const RunFolder& folder, const RunResult& result);

// "11.7 million", "512", "270 thousand".
std::string count_text(std::int64_t count);
// "44.7 MB" (millions of bytes).
std::string bytes_text(double bytes);

}  // namespace qtrain::cli
