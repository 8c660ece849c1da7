#include "cli/train_options.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/augmentation.h"
#include "cli/common_fields.h"
#include "engine/core/error.h"
#include "quant/registry.h"

namespace qtrain::cli {
namespace {

const Range at_least_0{.low = 0};
const Range at_least_1{.low = 1};
const Range above_0{.low = 0, .low_open = true};
const Range share{.low = 0, .high = 1};
const Range below_1{.low = 0, .high = 1, .high_open = true};
const std::string bit_hint = "32 leaves the values in float; for a float run use --quant none";
const std::vector<std::string> layer_rules = {"auto", "full", "weight-only", "float"};

Fields model_fields(TrainOptions& o) {
  return {
      {.name = "model", .slot = &o.model, .help = "network, see `qtrain list models`"},
      {.name = "num-classes",
       .slot = &o.num_classes,
       .help = "classes; auto: the data set's",
       .range = at_least_1},
      {.name = "relu", .slot = &o.relu, .help = "off: a network without ReLU, for inputs of one bit"},
      {.name = "init", .slot = &o.init, .help = "initial weights, safetensors", .value_name = "FILE"},
      {.name = "init-scale", .slot = &o.init_scale, .help = "multiply initial tensors: fc.weight=16"},
  };
}

Fields quant_fields(TrainOptions& o) {
  return {
      {.name = "quant", .slot = &o.quant, .help = "quantizer, see `qtrain list quantizers`"},
      {.name = "bits",
       .slot = &o.bits,
       .help = "bits of weights and activations",
       .range = bit_range,
       .hint = bit_hint},
      {.name = "w-bits",
       .slot = &o.w_bits,
       .help = "bits of weights; auto: --bits",
       .range = bit_range,
       .hint = bit_hint},
      {.name = "a-bits",
       .slot = &o.a_bits,
       .help = "bits of activations; auto: --bits",
       .range = bit_range,
       .hint = bit_hint},
      {.name = "set",
       .slot = &o.set,
       .help = "quantizer option; weight.K=V, activation.K=V, output.K=V or bias.K=V for one role",
       .table = "quant"},
      {.name = "w-quant", .slot = &o.w_quant, .help = "quantizer of the weights, if not --quant"},
      {.name = "a-quant", .slot = &o.a_quant, .help = "quantizer of the activations, if not --quant"},
      {.name = "b-quant",
       .slot = &o.b_quant,
       .help = "quantizer of the biases; auto: the weights', if it can"},
      {.name = "o-quant", .slot = &o.o_quant, .help = "quantizer of the convolutions' outputs"},
      {.name = "o-bits",
       .slot = &o.o_bits,
       .help = "bits of these outputs; auto: as activations",
       .range = bit_range,
       .hint = bit_hint},
      {.name = "first-layer",
       .slot = &o.first_layer,
       .help = "what is quantized in the first layer",
       .choices = layer_rules},
      {.name = "last-layer",
       .slot = &o.last_layer,
       .help = "what is quantized in the last layer",
       .choices = layer_rules},
      {.name = "first-w-bits",
       .slot = &o.first_w_bits,
       .help = "weight bits of the first layer",
       .range = bit_range,
       .hint = bit_hint},
      {.name = "last-w-bits",
       .slot = &o.last_w_bits,
       .help = "weight bits of the last layer",
       .range = bit_range,
       .hint = bit_hint},
      {.name = "fuse",
       .slot = &o.fuse,
       .help = "batch norm and quantization in one pass; off: each in its own, for the same results"},
      plugin_field(o.plugin),
  };
}

Fields data_fields(TrainOptions& o) {
  return {
      {.name = "data",
       .slot = &o.data,
       .help =
           "ImageFolder, pack, tar:DIR, cifar10:DIR, cifar100:DIR or tensors:FILE; none: a demo set is made",
       .value_name = "PATH"},
      {.name = "image-size",
       .slot = &o.image_size,
       .help = "height and width; auto: the data set's",
       .range = {.low = 1, .high = 8192}},
      {.name = "workers",
       .slot = &o.workers,
       .help = "threads that load data; results don't depend on it",
       .range = {.low = 0, .high = 1024},
       .short_name = "j"},
      {.name = "readers",
       .slot = &o.readers,
       .help = "threads that read files ahead of the workers; 0: each worker reads for itself",
       .range = {.low = 0, .high = 256}},
      {.name = "normalize",
       .slot = &o.normalize,
       .help = "mean and std of the input; raw: 0..255, unit: 0..1",
       .choices = {"auto", "imagenet", "cifar", "raw", "unit"}},
      {.name = "mean", .slot = &o.mean, .help = "own mean per channel, 0..1 scale; with --std", .count = 3},
      {.name = "std",
       .slot = &o.std,
       .help = "own standard deviation per channel",
       .range = above_0,
       .count = 3},
      {.name = "shuffle", .slot = &o.shuffle, .help = "new order in every epoch"},
      {.name = "drop-last", .slot = &o.drop_last, .help = "leave out an incomplete last training batch"},
      {.name = "rank",
       .slot = &o.rank,
       .help = "number of this process among those that share the data, from 0",
       .range = at_least_0},
      {.name = "world-size",
       .slot = &o.world_size,
       .help = "processes that share the data: each loads its part of every epoch; gradients stay apart",
       .range = at_least_1},
      {.name = "decode",
       .slot = &o.decode,
       .help = "JPEG files: smaller where they will be shrunk a lot anyway, or at full size",
       .choices = {"fast", "exact"}},
      {.name = "bad-images",
       .slot = &o.bad_images,
       .help = "an unreadable image ends the run, or is replaced",
       .choices = {"fail", "skip"}},
  };
}

Fields training_fields(TrainOptions& o) {
  return {
      {.name = "epochs",
       .slot = &o.epochs,
       .help = "passes over the training data",
       .range = {.low = 0, .high = 1e6}},
      {.name = "max-steps",
       .slot = &o.max_steps,
       .help = "stop after so many updates; 0: no limit",
       .range = at_least_0},
      batch_size_field(o.batch_size),
      {.name = "label-smoothing",
       .slot = &o.label_smoothing,
       .help = "share of the target spread evenly",
       .range = below_1,
       .alias = "smoothing"},
      {.name = "clip-grad",
       .slot = &o.clip_grad,
       .help = "largest L2 norm of all gradients; 0: off",
       .range = at_least_0},
      {.name = "seed",
       .slot = &o.seed,
       .help = "the same seed gives the same run, bit for bit",
       .range = at_least_0},
  };
}

Fields optimizer_fields(TrainOptions& o) {
  return {
      {.name = "optimizer",
       .slot = &o.optimizer,
       .help = "update rule, as in torch.optim",
       .choices = {"sgd", "adam", "adamw", "rmsprop"},
       .alias = "opt"},
      {.name = "lr", .slot = &o.lr, .help = "learning rate", .range = at_least_0, .alias = "learning-rate"},
      {.name = "momentum", .slot = &o.momentum, .help = "sgd, rmsprop", .range = below_1},
      {.name = "dampening", .slot = &o.dampening, .help = "sgd", .range = share},
      {.name = "nesterov", .slot = &o.nesterov, .help = "sgd: Nesterov momentum"},
      {.name = "weight-decay",
       .slot = &o.weight_decay,
       .help = "L2 penalty (adamw: decoupled)",
       .range = at_least_0,
       .alias = "wd"},
      {.name = "weight-decay-on",
       .slot = &o.weight_decay_on,
       .help = "weights: of convolution and linear layers only; all: every parameter",
       .choices = {"weights", "all"}},
      {.name = "betas", .slot = &o.betas, .help = "adam, adamw", .range = below_1, .count = 2},
      {.name = "eps", .slot = &o.eps, .help = "adam, adamw, rmsprop", .range = above_0},
      {.name = "alpha", .slot = &o.alpha, .help = "rmsprop: smoothing of squared gradients", .range = share},
  };
}

Fields schedule_fields(TrainOptions& o) {
  return {
      {.name = "schedule",
       .slot = &o.schedule,
       .help = "course of the learning rate",
       .choices = {"constant", "multistep", "cosine", "linear", "exponential", "polynomial"},
       .alias = "sched"},
      {.name = "milestones",
       .slot = &o.milestones,
       .help = "multistep: epochs at which lr *= gamma",
       .range = at_least_1},
      {.name = "gamma", .slot = &o.gamma, .help = "multistep, exponential (per epoch)", .range = above_0},
      {.name = "lr-min",
       .slot = &o.lr_min,
       .help = "where cosine, linear and polynomial end",
       .range = at_least_0,
       .alias = "min-lr"},
      {.name = "power", .slot = &o.power, .help = "polynomial", .range = above_0},
      {.name = "warmup-epochs",
       .slot = &o.warmup_epochs,
       .help = "linear warm-up, fractions allowed; auto: 1 for cosine from 5 epochs on, else 0",
       .range = at_least_0},
      {.name = "warmup-lr-factor",
       .slot = &o.warmup_lr_factor,
       .help = "warm-up starts at lr times this",
       .range = share},
  };
}

Fields machine_fields(TrainOptions& o) {
  return {
      device_field(o.device),
      {.name = "precision",
       .slot = &o.precision,
       .help =
           "bf16: activations and gradients in 16 bits, weights stay fp32; tf32: GPUs multiply fp32 faster",
       .choices = precisions},
      {.name = "autotune",
       .slot = &o.autotune,
       .help = "on a GPU: measure cuDNN's plans for each convolution and keep the fastest"},
      {.name = "threads",
       .slot = &o.threads,
       .help = "compute threads; 0: all cores",
       .range = {.low = 0, .high = 4096}},
      {.name = "graph", .slot = &o.graph, .help = "GPU: record a training step once and replay it"},
  };
}

Fields folder_fields(TrainOptions& o) {
  return {
      {.name = "output",
       .slot = &o.output,
       .help = "run folder; default runs/<model>-<quant>-w<N>a<N>-<time>",
       .value_name = "DIR",
       .short_name = "o"},
      {.name = "resume",
       .slot = &o.resume,
       .help = "go on from a checkpoint or run folder, bit for bit",
       .value_name = "PATH"},
      {.name = "config",
       .slot = &o.config,
       .help = "TOML file with the same names; flags override it",
       .value_name = "FILE",
       .short_name = "c",
       .saved = false},
      {.name = "checkpoint-every",
       .slot = &o.checkpoint_every,
       .help = "steps; 0: after each epoch",
       .range = at_least_0},
      {.name = "metrics-every",
       .slot = &o.metrics_every,
       .help = "steps between rows of steps.csv; 0: none",
       .range = at_least_0},
      {.name = "log-interval",
       .slot = &o.log_interval,
       .help = "steps between lines when not on a terminal; 0: 10 s",
       .range = at_least_0},
      {.name = "eval-every",
       .slot = &o.eval_every,
       .help = "epochs between evaluations; 0: only at the end",
       .range = at_least_0},
  };
}

void require(bool condition, const Diagnosis& diagnosis) {
  if (!condition) throw ValueError(diagnosis);
}

std::string file_safe(const std::string& name) {
  std::string safe = name;
  std::replace_if(
      safe.begin(), safe.end(), [](unsigned char c) { return c <= 0x20 || c == '/' || c == 0x7f; }, '_');
  return safe;
}

}  // namespace

Fields train_fields(TrainOptions& options) {
  Fields all;
  append(all, grouped("Model", model_fields(options)));
  append(all, grouped("Quantization", quant_fields(options)));
  append(all, grouped("Data", data_fields(options)));
  append(all, grouped("Augmentation", augmentation_fields(options)));
  append(all, grouped("Training", training_fields(options)));
  append(all, grouped("Optimizer", optimizer_fields(options)));
  append(all, grouped("Schedule", schedule_fields(options)));
  append(all, grouped("Machine", machine_fields(options)));
  append(all, grouped("Run folder", folder_fields(options)));
  return all;
}

void validate(const TrainOptions& o) {
  require(
      o.schedule != "multistep" || !o.milestones.empty(),
      {"--schedule", "multistep needs milestones", "none", "epochs", "for example --milestones 30,60,90"});
  require(
      std::adjacent_find(o.milestones.begin(), o.milestones.end(), std::greater_equal<>()) ==
          o.milestones.end(),
      {"--milestones", "milestones must increase", fmt::format("{}", fmt::join(o.milestones, ",")), "", ""});
  require(!o.nesterov || (o.momentum > 0 && o.dampening == 0),
          {"--nesterov", "Nesterov needs momentum and no dampening",
           fmt::format("momentum {}, dampening {}", o.momentum, o.dampening), "momentum above 0, dampening 0",
           ""});
  require(o.lr_min <= o.lr, {"--lr-min", "the schedule can't end above its start", number_text(o.lr_min),
                             "at most --lr " + number_text(o.lr), ""});
  require(o.warmup() <= static_cast<double>(o.epochs),
          {"--warmup-epochs", "warm-up is longer than the run", number_text(o.warmup()),
           fmt::format("at most --epochs {}", o.epochs), ""});
  require(o.mean.empty() == o.std.empty(), {"--mean", "--mean and --std go together",
                                            o.mean.empty() ? "only --std" : "only --mean", "both", ""});
  // A resumed run's other flag is in the checkpoint, where neither can change.
  require(!o.resume.empty() || o.rank < o.world_size,
          {"--rank", "no such process", std::to_string(o.rank),
           fmt::format("0 to {}, below --world-size", o.world_size - 1), ""});
  validate_augmentation(o);
  for (const auto& [name, factor] : o.init_scale) {
    const auto value = to_number(factor);
    require(value && std::isfinite(*value),
            {"--init-scale", fmt::format("factor of '{}' is not a number", name), fmt::format("'{}'", factor),
             "a number", ""});
  }
}

std::string default_output(const TrainOptions& o, std::time_t now) {
  const auto part = [](const std::string& own, const std::string& common) {
    return own.empty() ? common : own;
  };
  const std::string weights = part(o.w_quant, o.quant);
  const std::string activations = part(o.a_quant, o.quant);
  const std::string name = weights == activations ? weights : weights + "+" + activations;
  // What a quantizer leaves alone stays float.
  const auto bits = [](const std::string& quantizer, quant::Role role, std::int64_t asked) {
    const auto all = quant::quantizers();
    const auto info = std::ranges::find(all, quantizer, [](const auto* i) { return i->name; });
    return info != all.end() && !(*info)->has_role(role) ? std::int64_t{quant::float_bits} : asked;
  };
  const std::string kind =
      name == "none" ? "float"
                     : fmt::format("{}-w{}a{}", name, bits(weights, quant::Role::weight, o.weight_bits()),
                                   bits(activations, quant::Role::activation, o.activation_bits()));
  return fmt::format("runs/{}-{}-{:%Y%m%d-%H%M%S}", file_safe(o.model), file_safe(kind), fmt::localtime(now));
}

}  // namespace qtrain::cli
