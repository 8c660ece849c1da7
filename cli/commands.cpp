#include "cli/commands.h"

namespace qtrain::cli {
namespace {

const Range bit_range{.low = 1, .high = 32};

Field device_field(std::string& device) {
  return {.name = "device", .slot = &device, .help = "where to compute", .choices = {"auto", "cpu", "cuda"}};
}

Field plugin_field(std::vector<std::string>& plugin) {
  return {.name = "plugin", .slot = &plugin, .help = "shared library with more quantizers; repeatable"};
}

Field json_field(bool& json) {
  return {.name = "json", .slot = &json, .help = "print JSON"};
}

}  // namespace

Fields eval_fields(EvalOptions& o) {
  Fields fields = {
      {.name = "checkpoint",
       .slot = &o.checkpoint,
       .help = "file or run folder",
       .value_name = "PATH",
       .required = true},
      {.name = "data",
       .slot = &o.data,
       .help = "as for training; none: the data of the checkpoint's run",
       .value_name = "PATH"},
      {.name = "batch-size",
       .slot = &o.batch_size,
       .help = "images per step",
       .range = {.low = 1, .high = 1e6},
       .short_name = "b"},
      {.name = "image-size",
       .slot = &o.image_size,
       .help = "height and width; auto: as in training",
       .range = {.low = 1, .high = 8192}},
      {.name = "workers",
       .slot = &o.workers,
       .help = "threads that load data",
       .range = {.low = 0, .high = 1024},
       .short_name = "j"},
      {.name = "decode",
       .slot = &o.decode,
       .help = "as for training; auto: as in the run",
       .choices = {"auto", "fast", "exact"}},
      {.name = "bad-images",
       .slot = &o.bad_images,
       .help = "an unreadable image ends the command, or is left out",
       .choices = {"fail", "skip"}},
      {.name = "threads",
       .slot = &o.threads,
       .help = "compute threads; 0: all cores",
       .range = {.low = 0, .high = 4096}},
  };
  std::vector<std::string> own_or_given{"auto"};
  own_or_given.insert(own_or_given.end(), precisions.begin(), precisions.end());
  append(fields, {device_field(o.device),
                  {.name = "precision",
                   .slot = &o.precision,
                   .help = "as for training; auto: that of the run",
                   .choices = own_or_given},
                  plugin_field(o.plugin),
                  json_field(o.json)});
  return grouped("Options", fields);
}

Fields list_fields(ListOptions& o) {
  return grouped("Options", {{.name = "what",
                              .slot = &o.what,
                              .help = "what to list; nothing: everything",
                              .choices = {"models", "quantizers", "datasets", "optimizers", "schedules"},
                              .positional = true},
                             plugin_field(o.plugin),
                             json_field(o.json)});
}

Fields apply_fields(ApplyOptions& o) {
  Fields fields = {
      {.name = "quant",
       .slot = &o.quant,
       .help = "quantizer, see `qtrain list quantizers`",
       .required = true},
      {.name = "role",
       .slot = &o.role,
       .help = "what the tensor is",
       .choices = {"weight", "activation", "output", "bias"}},
      {.name = "bits",
       .slot = &o.bits,
       .help = "bit-width",
       .range = bit_range,
       .hint = "32 leaves the values in float"},
      {.name = "set", .slot = &o.set, .help = "option of the quantizer"},
      {.name = "training", .slot = &o.training, .help = "training or evaluation mode"},
      {.name = "network",
       .slot = &o.network,
       .help = "the input is a checkpoint or a network's tensors: quantize every weight, copy the rest"},
      {.name = "input",
       .slot = &o.input,
       .help = "safetensors with x; grad_y, param.* and state.* if wanted",
       .value_name = "FILE",
       .short_name = "i",
       .required = true},
      {.name = "output",
       .slot = &o.output,
       .help = "safetensors to write: y and all gradients",
       .value_name = "FILE",
       .short_name = "o",
       .required = true},
  };
  append(fields, {device_field(o.device), plugin_field(o.plugin)});
  return grouped("Options", fields);
}

Fields explain_fields(ExplainOptions& o) {
  Fields fields = {
      {.name = "quant",
       .slot = &o.quant,
       .help = "quantizer, or several with commas between",
       .required = true},
      {.name = "role",
       .slot = &o.role,
       .help = "what x is; auto: weights and activations",
       .choices = {"auto", "weight", "activation", "output", "bias"}},
      {.name = "bits", .slot = &o.bits, .help = "bit-width", .range = bit_range},
      {.name = "set", .slot = &o.set, .help = "option of the quantizer"},
      {.name = "range",
       .slot = &o.range,
       .help = "first and last x; nothing: where the quantizer saturates",
       .value_name = "LOW,HIGH",
       .count = 2},
      {.name = "points",
       .slot = &o.points,
       .help = "how many x, evenly spaced",
       .range = {.low = 2, .high = 4001}},
      {.name = "output", .slot = &o.output, .help = "SVG to write", .value_name = "FILE", .short_name = "o"},
      {.name = "csv", .slot = &o.csv, .help = "the numbers, a row a point", .value_name = "FILE"},
  };
  append(fields, {plugin_field(o.plugin), json_field(o.json)});
  return grouped("Options", fields);
}

Fields verify_fields(VerifyOptions& o) {
  return grouped("Options",
                 {{.name = "families",
                   .slot = &o.families,
                   .help = "golden families: NAME.json with NAME.safetensors beside it, or folders",
                   .value_name = "PATH...",
                   .positional = true,
                   .required = true},
                  {.name = "cases", .slot = &o.cases, .help = "list every case with its errors"},
                  device_field(o.device),
                  plugin_field(o.plugin),
                  json_field(o.json)});
}

}  // namespace qtrain::cli
