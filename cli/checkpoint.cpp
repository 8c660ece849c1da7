#include "cli/checkpoint.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/config_file.h"
#include "cli/field.h"
#include "engine/core/error.h"
#include "engine/io/tensor_file.h"

namespace qtrain::cli {
namespace {

constexpr std::string_view model_prefix = "model.";
constexpr std::string_view optimizer_prefix = "optimizer.";

using Metadata = std::map<std::string, std::string>;

// Numbers as the shortest text that reads back as the same number.
void put_state(Metadata& metadata, const RunState& s) {
  metadata["epoch"] = std::to_string(s.epoch);
  metadata["batches"] = std::to_string(s.batches);
  metadata["step"] = std::to_string(s.step);
  metadata["images"] = std::to_string(s.images);
  metadata["evaluations"] = std::to_string(s.evaluations);
  metadata["best_epoch"] = std::to_string(s.best_epoch);
  metadata["loss_sum"] = number_text(s.loss_sum);
  metadata["correct"] = number_text(s.correct);
  metadata["best_top1"] = number_text(s.best_top1);
  metadata["seconds"] = number_text(s.seconds);
  if (!s.validation) return;
  metadata["val_loss"] = number_text(s.validation->loss);
  metadata["val_top1"] = number_text(s.validation->top1);
  metadata["val_top5"] = number_text(s.validation->top5);
}

class MetadataReader {
 public:
  explicit MetadataReader(const CheckpointFile& file) : file_(file) {}

  bool has(const std::string& key) const { return file_.metadata().contains(key); }
  const std::string& text(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    if (found == file_.metadata().end()) fail(key, "nothing");
    return found->second;
  }
  std::int64_t count(const std::string& key) const {
    const auto value = to_integer(text(key));
    if (!value || *value < 0) fail(key, text(key));
    return *value;
  }
  double number(const std::string& key) const {
    const std::string& value = text(key);
    if (value == "nan" || value == "-nan") return std::numeric_limits<double>::quiet_NaN();
    const auto parsed = to_number(value);
    if (!parsed) fail(key, value);
    return *parsed;
  }
  [[noreturn]] void fail(const std::string& key, const std::string& got) const {
    throw FormatError({.where = file_.name(),
                       .what = fmt::format("bad entry '{}' of the metadata", key),
                       .got = got,
                       .expected = "what qtrain writes there",
                       .hint = ""});
  }

 private:
  const CheckpointFile& file_;
};

RunState read_state(const MetadataReader& read) {
  RunState s;
  s.epoch = read.count("epoch");
  s.batches = read.count("batches");
  s.step = read.count("step");
  s.images = read.count("images");
  s.evaluations = read.count("evaluations");
  s.best_epoch = read.count("best_epoch");
  s.loss_sum = read.number("loss_sum");
  s.correct = read.number("correct");
  s.best_top1 = read.number("best_top1");
  s.seconds = read.number("seconds");
  if (read.has("val_loss"))
    s.validation = Validation{read.number("val_loss"), read.number("val_top1"), read.number("val_top5")};
  return s;
}

std::vector<std::string> read_class_names(const MetadataReader& read) {
  try {
    return nlohmann::json::parse(read.text("class_names")).get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception&) {
    read.fail("class_names", read.text("class_names"));
  }
}

NamedTensors tensors_under(const Checkpoint& checkpoint, std::string_view prefix) {
  NamedTensors tensors;
  for (const TensorEntry& entry : checkpoint.file.entries())
    if (entry.name.starts_with(prefix))
      tensors.push_back({entry.name.substr(prefix.size()), to_tensor(entry, checkpoint.file.name())});
  return tensors;
}

}  // namespace

std::string settings_text(TrainOptions options) {
  options.output.clear();
  options.resume.clear();
  return config_text(train_fields(options));
}

void write_checkpoint(const std::filesystem::path& path, Module& network, const Optimizer& optimizer,
                      const TrainOptions& options, const RunState& state,
                      const std::vector<std::string>& class_names) {
  NamedTensors tensors;
  for (const NamedTensor& t : network.state_dict())
    tensors.push_back({std::string(model_prefix) + t.name, t.tensor});
  for (const NamedTensor& t : optimizer.state())
    tensors.push_back({std::string(optimizer_prefix) + t.name, t.tensor});
  Metadata metadata{
      {"qtrain", QTRAIN_VERSION},
      {"model", options.model},
      {"seed", std::to_string(options.seed)},
      {"settings", settings_text(options)},
      {"class_names",
       nlohmann::json(class_names).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)}};
  put_state(metadata, state);
  const HostTensors host(tensors);
  save_checkpoint(path, host.list(), metadata);
}

Checkpoint read_checkpoint(const std::filesystem::path& path) {
  Checkpoint checkpoint{CheckpointFile::open(path), {}, {}, {}};
  if (!checkpoint.file.verified())
    throw FormatError({.where = path.string(),
                       .what = "not a checkpoint of a qtrain run",
                       .got = "a plain safetensors file",
                       .expected = "",
                       .hint = "--init starts a run from its weights"});
  const MetadataReader read(checkpoint.file);
  read_config_text(train_fields(checkpoint.options), read.text("settings"), path.string() + ": settings");
  checkpoint.state = read_state(read);
  checkpoint.class_names = read_class_names(read);
  return checkpoint;
}

void restore_network(const Checkpoint& checkpoint, Module& network) {
  try {
    network.load_state_dict(tensors_under(checkpoint, model_prefix));
  } catch (const ValueError& error) {
    throw ValueError({.where = checkpoint.file.name(),
                      .what = "the checkpoint belongs to another network",
                      .got = error.what(),
                      .expected = "",
                      .hint = ""});
  }
}

void restore_optimizer(const Checkpoint& checkpoint, Optimizer& optimizer) {
  try {
    optimizer.load_state(tensors_under(checkpoint, optimizer_prefix));
  } catch (const ValueError& error) {
    throw ValueError({.where = checkpoint.file.name(),
                      .what = "the checkpoint belongs to another optimizer",
                      .got = error.what(),
                      .expected = "",
                      .hint = ""});
  }
}

}  // namespace qtrain::cli
