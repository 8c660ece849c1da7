// qtrain train: a new run, or one that goes on.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <iostream>

#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/model_setup.h"
#include "cli/report.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

void warn(const std::string& text) {
  std::cerr << "warning: " << text << std::endl;
}

// What the tensors of a checkpoint and its place in an epoch depend on.
const std::vector<std::string> bound_to_checkpoint = {
    "model",      "num-classes",  "relu",        "init-scale", "quant",      "bits",
    "w-bits",     "a-bits",       "set",         "w-quant",    "a-quant",    "first-layer",
    "last-layer", "first-w-bits", "last-w-bits", "rank",       "world-size", "batch-size",
    "seed",       "shuffle",      "drop-last",   "optimizer"};

// The settings of a resumed run: those of the checkpoint, with the flags that were typed on top.
TrainOptions resumed_options(const TrainOptions& typed, TrainOptions saved, const std::string& origin) {
  TrainOptions flags = typed;
  const Fields from = train_fields(flags);
  const Fields to = train_fields(saved);
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::string& name = from[i].name;
    if (std::ranges::find(typed.given.names, name) == typed.given.names.end()) continue;
    const std::string before = text_of(to[i]);
    const std::string now = text_of(from[i]);
    if (before != now && std::ranges::find(bound_to_checkpoint, name) != bound_to_checkpoint.end())
      throw ValueError({.where = "--" + name,
                        .what = "can't change in a resumed run",
                        .got = now,
                        .expected = fmt::format("{}, as in {}", before, origin),
                        .hint = "--init starts a new run from the same weights"});
    copy_value(from[i], to[i]);
  }
  validate(saved);
  return saved;
}

struct Start {
  TrainOptions options;
  std::filesystem::path folder;
  bool resumes = false;  // in that folder
  std::optional<Checkpoint> checkpoint = {};
};

Start start_new(const TrainOptions& options) {
  Start start{.options = options, .folder = options.output};
  if (options.output.empty()) start.folder = default_output(options, std::time(nullptr));
  RunFolder::require_fresh(start.folder);
  add_from_scratch_options(start.options);
  return start;
}

Start start_resumed(const TrainOptions& options) {
  namespace fs = std::filesystem;
  if (!options.config.empty())
    throw ValueError({.where = "--resume",
                      .what = "--config and --resume exclude each other",
                      .got = "both",
                      .expected = "one of them",
                      .hint = "a checkpoint holds its settings; flags change them"});
  const fs::path source = options.resume;
  std::error_code ignored;
  const fs::path home = fs::is_directory(source, ignored) ? source : source.parent_path();
  const bool elsewhere = !options.output.empty() && !fs::equivalent(options.output, home, ignored);
  std::optional<Checkpoint> checkpoint = newest_checkpoint(source, warn);
  TrainOptions saved;
  if (checkpoint) {
    saved = checkpoint->options;
  } else {
    warn(fmt::format("{} has no checkpoint yet: the run starts from its beginning", source.string()));
    read_config(train_fields(saved), settings_file(source).string());
  }
  const std::string origin = checkpoint ? checkpoint->file.name() : settings_file(source).string();
  Start start{.options = resumed_options(options, saved, origin),
              .folder = elsewhere ? fs::path(options.output) : (home.empty() ? "." : home),
              .resumes = !elsewhere,
              .checkpoint = std::move(checkpoint)};
  if (elsewhere) RunFolder::require_fresh(start.folder);
  return start;
}

}  // namespace

int run_train(const TrainOptions& given) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is an error of write(), like a full disk
  Start start = given.resume.empty() ? start_new(given) : start_resumed(given);
  Session session = make_session(start.options);
  RunState state;
  std::filesystem::path loaded_from;
  if (start.checkpoint) {
    restore_network(*start.checkpoint, *session.network);
    restore_optimizer(*start.checkpoint, *session.optimizer);
    state = start.checkpoint->state;
    loaded_from = start.checkpoint->file.name();
    start.checkpoint.reset();  // unmaps the file
  }
  // Only now is anything written: mistakes above leave no trace.
  const RunFolder folder = start.resumes ? RunFolder::reopen(start.folder) : RunFolder::create(start.folder);
  // A file that was asked for by name, such as the best one, stays where it is.
  const bool asked_for = loaded_from == given.resume;
  if (start.resumes && !asked_for) folder.adopt(loaded_from);
  const bool saved = start.resumes && !loaded_from.empty() && (!asked_for || loaded_from == folder.last());
  folder.write_settings(settings_text(session.options));
  std::cout << header_text(session, folder, state) << std::endl;
  TrainingLoop loop(session, folder, state, saved);
  const RunResult result = loop.run();
  if (result.end == End::signal) {
    std::cout << fmt::format("stopped after step {}, saved; go on with\n  qtrain --resume {}",
                             result.state.step, folder.path().string())
              << std::endl;
    return result.exit_status;
  }
  std::cout << summary_text(session, folder, result) << std::endl;
  return 0;
}

}  // namespace qtrain::cli
