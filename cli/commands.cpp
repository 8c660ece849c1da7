#include "cli/commands.h"

#include "cli/common_fields.h"
#include "data/augment/transform.h"

namespace qtrain::cli {
namespace {

Field workers_field(std::int64_t& workers) {
  return {.name = "workers",
          .slot = &workers,
          .help = "threads that load data",
          .range = {.low = 0, .high = 1024},
          .short_name = "j"};
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
      batch_size_field(o.batch_size),
      {.name = "image-size",
       .slot = &o.image_size,
       .help = "height and width; auto: as in training",
       .range = {.low = 1, .high = 8192}},
      workers_field(o.workers),
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
  append(fields, {device_field(o.device),
                  {.name = "precision",
                   .slot = &o.precision,
                   .help = "as for training; auto: that of the run",
                   .choices = or_auto(precisions)},
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

Fields bench_data_fields(BenchDataOptions& o) {
  return grouped(
      "Options",
      {{.name = "data", .slot = &o.data, .help = "as for training; none: the demo set", .value_name = "PATH"},
       {.name = "split", .slot = &o.split, .help = "which images", .choices = {"train", "val"}},
       workers_field(o.workers),
       {.name = "readers",
        .slot = &o.readers,
        .help = "threads that read files ahead of the workers",
        .range = {.low = 0, .high = 256}},
       batch_size_field(o.batch_size),
       {.name = "image-size",
        .slot = &o.image_size,
        .help = "height and width; auto: 224, or the data set's",
        .range = {.low = 1, .high = 8192}},
       {.name = "augment",
        .slot = &o.augment,
        .help = "as for training",
        .choices = or_auto(data::augment_names())},
       {.name = "bad-images",
        .slot = &o.bad_images,
        .help = "an unreadable image ends the command, or is replaced",
        .choices = {"fail", "skip"}},
       {.name = "seconds",
        .slot = &o.seconds,
        .help = "time for all measurements together",
        .range = {.low = 0.1, .high = 86400}},
       {.name = "images",
        .slot = &o.images,
        .help = "images of each measurement, at most; 0: as many as there is time for",
        .range = {.low = 0}},
       json_field(o.json)});
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

Fields pack_fields(PackOptions& o) {
  return grouped(
      "Options",
      {{.name = "data",
        .slot = &o.data,
        .help = "image files, in any form that training takes",
        .value_name = "PATH",
        .required = true},
       {.name = "output",
        .slot = &o.output,
        .help = "the pack to write; training takes it as --data",
        .value_name = "FILE",
        .short_name = "o",
        .required = true},
       {.name = "shorter-side",
        .slot = &o.shorter_side,
        .help = "images whose shorter side is larger are resized to it and become JPEG; auto: none",
        .range = {.low = 1, .high = 8192},
        .alias = "max-side"},
       {.name = "quality",
        .slot = &o.quality,
        .help = "of these JPEG files; auto: 90",
        .range = {.low = 1, .high = 100}},
       {.name = "workers",
        .slot = &o.workers,
        .help = "threads; the pack doesn't depend on it; auto: one per core",
        .range = {.low = 1, .high = 1024},
        .short_name = "j"},
       {.name = "bad-images",
        .slot = &o.bad_images,
        .help = "an unreadable image ends the command, or is left out",
        .choices = {"fail", "skip"}},
       {.name = "force", .slot = &o.force, .help = "replace a pack that is there already"}});
}

}  // namespace qtrain::cli
