// Every setting of a training run. The defaults here are the product's defaults; flags, help and
// configuration files are made from train_fields().
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "cli/field.h"

namespace qtrain::cli {

// Which flags were typed. How settings came about is no part of their comparison.
struct GivenNames {
  std::vector<std::string> names;
  bool operator==(const GivenNames&) const { return true; }
};

struct TrainOptions {
  // Model
  std::string model = "resnet18";
  std::optional<std::int64_t> num_classes;  // unset: as many as the data set has
  bool relu = true;                         // off: the network has no ReLU
  std::string init;                         // safetensors with initial weights; "" = none
  std::vector<Assignment> init_scale;       // tensor name = factor, applied after --init

  // Quantization
  std::string quant = "none";
  std::int64_t bits = 4;
  std::optional<std::int64_t> w_bits;  // unset: bits
  std::optional<std::int64_t> a_bits;  // unset: bits
  std::string w_quant;                 // another quantizer for the weights; "" = quant
  std::string a_quant;                 // another quantizer for the activations; "" = quant
  std::string o_quant = "none";        // quantizer of convolutions' outputs
  std::string b_quant = "auto";        // quantizer of biases; auto: the weights' where it can
  std::optional<std::int64_t> o_bits;  // unset: activation_bits()
  std::vector<Assignment> set;         // quantizer options; keys may start with `weight.` or `activation.`
  std::string first_layer = "auto";    // auto = the quantizer's own rule
  std::string last_layer = "auto";
  std::optional<std::int64_t> first_w_bits;
  std::optional<std::int64_t> last_w_bits;
  bool fuse = true;                 // batch norm and quantization in one pass
  std::vector<std::string> plugin;  // shared libraries with more quantizers

  // Data
  std::string data;                        // "" = the demo set
  std::optional<std::int64_t> image_size;  // unset: the data set's own
  std::int64_t workers = 2;
  std::string normalize = "auto";
  std::vector<double> mean;  // with std: replaces normalize; per channel, on the 0..1 scale
  std::vector<double> std;
  bool shuffle = true;
  bool drop_last = true;
  std::int64_t readers = 4;
  std::int64_t rank = 0;  // of this process among world_size that share the data
  std::int64_t world_size = 1;
  std::string decode = "fast";
  std::string bad_images = "fail";

  // Augmentation
  std::string augment = "auto";
  std::vector<double> rrc_scale;  // area of a random resized crop; empty: 0.08,1, demo 0.35,1
  std::vector<double> rrc_ratio;  // its width / height; empty: 3/4,4/3
  double crop_ratio = 0.875;
  std::int64_t crop_padding = 4;
  std::string padding_mode = "zero";
  double flip = 0.5;  // probability of a horizontal flip
  double vflip = 0;
  std::vector<std::int64_t> rand_augment;  // operations, magnitude; empty: off
  std::vector<double> color_jitter;        // brightness, contrast, saturation, hue; empty: off
  double lighting = 0;                     // standard deviation
  double random_erasing = 0;               // probability
  std::string random_erasing_mode = "mean";
  double mixup = 0;   // alpha
  double cutmix = 0;  // alpha
  double mix_prob = 1;
  double mix_switch_prob = 0.5;

  // Training
  std::int64_t epochs = 9;
  std::int64_t max_steps = 0;  // 0 = no limit
  std::int64_t batch_size = 64;
  double label_smoothing = 0;
  double clip_grad = 0;  // largest global L2 norm; 0 = off
  std::int64_t seed = 0;

  // Optimizer
  std::string optimizer = "sgd";
  double lr = 0.015;
  double momentum = 0.9;
  double dampening = 0;
  bool nesterov = false;
  double weight_decay = 1e-4;
  std::string weight_decay_on = "weights";
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double alpha = 0.99;  // RMSprop's smoothing

  // Schedule
  std::string schedule = "cosine";
  std::vector<std::int64_t> milestones;  // epochs
  double gamma = 0.1;
  double lr_min = 0;
  double power = 1;
  std::optional<double> warmup_epochs;  // unset: 1 for cosine schedules of 5 epochs or more, else 0
  double warmup_lr_factor = 0.01;

  // Machine
  std::string device = "auto";
  std::string precision = "fp32";
  bool autotune = false;
  std::int64_t threads = 0;  // 0 = all cores
  bool graph = true;         // record the device's part of a step, where the device can

  // Run folder
  std::string output;  // "" = default_output()
  std::string resume;  // checkpoint or run folder; its weights replace init
  std::string config;  // read before the flags; never written
  std::int64_t checkpoint_every = 0;
  std::int64_t metrics_every = 1;
  std::int64_t log_interval = 0;
  std::int64_t eval_every = 1;

  GivenNames given;  // resuming, they stand against the checkpoint's settings

  std::int64_t weight_bits() const { return w_bits.value_or(bits); }
  std::int64_t activation_bits() const { return a_bits.value_or(bits); }
  std::int64_t output_bits() const { return o_bits.value_or(activation_bits()); }
  double warmup() const { return warmup_epochs.value_or(schedule == "cosine" && epochs >= 5 ? 1.0 : 0.0); }

  bool operator==(const TrainOptions&) const = default;
};

// The table of all settings, bound to `options`, which must outlive it.
Fields train_fields(TrainOptions& options);

// --precision.
inline const std::vector<std::string> precisions = {"fp32", "tf32", "bf16"};

// Rules that bind several settings (multistep needs milestones, nesterov needs momentum, ...). Throws
// ValueError.
void validate(const TrainOptions& options);

// runs/<model>-<quant>-w<N>a<N>-<date-time>, for float runs runs/<model>-float-<date-time>; local time.
std::string default_output(const TrainOptions& options, std::time_t now);

}  // namespace qtrain::cli
