#include "cli/dispatch.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <optional>
#include <ostream>

#include "cli/config_file.h"
#include "cli/flags.h"
#include "cli/help.h"
#include "engine/core/error.h"

#ifndef QTRAIN_VERSION
#define QTRAIN_VERSION "development"
#endif

namespace qtrain::cli {
namespace {

using Arguments = std::vector<std::string>;

const std::string overview =
    "Trains a network, quantized or float. Other commands, each with its own --help:\n"
    "  qtrain eval        accuracy of a checkpoint\n"
    "  qtrain list        models, quantizers, data sets, ... with their options\n"
    "  qtrain apply       one quantizer on a tensor file\n"
    "  qtrain explain     a quantizer's output and gradients as a picture\n"
    "  qtrain verify      golden cases of the quantizers\n"
    "  qtrain pack        the images of a data set in one file, for faster loading\n"
    "  qtrain bench-data  how fast a data set is read and decoded";

const CommandText train_text = {
    "qtrain [train]", overview,
    "  qtrain --model resnet18 --quant sat --bits 4\n"
    "      a 4-bit ResNet-18 by scale-adjusted training, on a demo set made on the spot\n"
    "  qtrain --model resnet18 --data DIR --epochs 90 --batch-size 256 --lr 0.1 --wd 1e-4\n"
    "      a float run on DIR/train and DIR/val, one folder per class\n"
    "  qtrain --config runs/A/config.toml --w-bits 2 --set weight.scheme=modified -o runs/B\n"
    "      another run's settings with 2-bit weights\n"
    "  qtrain --resume runs/B\n"
    "      goes on where a run was stopped, bit for bit"};
const CommandText eval_text = {"qtrain eval", "Top-1, top-5 and loss of a checkpoint.",
                               "  qtrain eval --checkpoint runs/A --data DIR"};
const CommandText list_text = {"qtrain list", "What there is, with options and defaults.",
                               "  qtrain list quantizers"};
const CommandText apply_text = {
    "qtrain apply",
    "Runs one quantizer on a tensor file: y, and with grad_y in the input all gradients.\n"
    "Or overwrites the weights of a trained network.",
    "  qtrain apply --quant sat --role weight --bits 4 --set scheme=original -i x.safetensors -o "
    "y.safetensors\n"
    "  qtrain apply --quant afp --bits 5 --network -i runs/A/best.safetensors -o afp5.safetensors"};
const CommandText explain_text = {
    "qtrain explain",
    "Runs quantizers on evenly spaced numbers and draws the output, its gradient by the input, and by each\n"
    "learned parameter. Several quantizers come on one picture.",
    "  qtrain explain --quant sat --bits 2 --set weight.scheme=centered -o sat.svg\n"
    "  qtrain explain --quant none,sat --role activation --range -2,10 -o both.svg --csv both.csv"};
const CommandText verify_text = {
    "qtrain verify",
    "Runs every case of golden families and prints how near each role comes.\n"
    "Exit status 1 if any case is out of tolerance or stops with an error, 3 if some can't be run here.",
    "  qtrain verify tests/golden"};
const CommandText pack_text = {
    "qtrain pack",
    "Puts the image files of a data set, both splits, into one file that training reads faster. With\n"
    "--shorter-side the images get smaller, too: 256 is what evaluation at 224 resizes to anyway.",
    "  qtrain pack --data DIR -o imagenet-256.pack --shorter-side 256\n"
    "  qtrain --model resnet18 --data imagenet-256.pack\n"
    "  qtrain pack --data DIR -o imagenet.pack\n"
    "      the files as they are: training on the pack equals training on DIR, bit for bit"};

const CommandText bench_data_text = {
    "qtrain bench-data",
    "Reads and decodes images without training: how fast the disk is, how fast the decoder, and what both\n"
    "together give. Says which of them limits.",
    "  qtrain bench-data --data DIR --workers 8 --batch-size 256"};

// Parses into `options`; false when the help was printed instead.
template <class Options>
bool parse(Options& options, Fields (*make_fields)(Options&), const CommandText& text,
           const Arguments& arguments, std::ostream& out) {
  const Fields fields = make_fields(options);
  const auto given = parse_flags(fields, arguments);
  if (given) {
    assign_flags(*given);
  } else {
    out << help_text(text, fields);
  }
  return given.has_value();
}

template <class Options>
int run(const std::function<int(const Options&)>& command, Fields (*make_fields)(Options&),
        const CommandText& text, const Arguments& arguments, std::ostream& out) {
  Options options;
  return parse(options, make_fields, text, arguments, out) ? command(options) : 0;
}

std::optional<TrainOptions> parse_train(const Arguments& arguments) {
  TrainOptions options;
  const Fields fields = train_fields(options);
  const auto given = parse_flags(fields, arguments);
  if (!given) return std::nullopt;
  bool init = false;
  bool resume = false;
  for (const GivenFlag& flag : *given) {
    options.given.names.push_back(flag.field->name);
    if (flag.field->name == "config") assign_flags({flag});
    init = init || flag.field->name == "init";
    resume = resume || flag.field->name == "resume";
  }
  if (init && resume)
    throw ValueError({"--resume", "--init and --resume exclude each other", "both", "one of them",
                      "a checkpoint holds its own weights"});
  if (!options.config.empty()) read_config(fields, options.config);
  assign_flags(*given);
  validate(options);
  return options;
}

int choose(const Arguments& arguments, const Commands& commands, std::ostream& out) {
  static const std::vector<std::string> names = {"train",   "eval",   "list", "apply",
                                                 "explain", "verify", "pack", "bench-data"};
  const std::string first = arguments.empty() ? "" : arguments.front();
  if (first == "--version" || first == "-V") {
    out << "qtrain " << QTRAIN_VERSION << "\n";
    return 0;
  }
  const bool named = !first.empty() && first[0] != '-';
  if (named && std::find(names.begin(), names.end(), first) == names.end())
    throw ValueError({"command line", fmt::format("unknown command '{}'", first), "",
                      "train|eval|list|apply|explain|verify|pack|bench-data", suggest(first, names)});
  const Arguments rest(arguments.begin() + (named ? 1 : 0), arguments.end());
  if (first == "eval") return run(commands.eval, eval_fields, eval_text, rest, out);
  if (first == "list") return run(commands.list, list_fields, list_text, rest, out);
  if (first == "apply") return run(commands.apply, apply_fields, apply_text, rest, out);
  if (first == "explain") return run(commands.explain, explain_fields, explain_text, rest, out);
  if (first == "verify") return run(commands.verify, verify_fields, verify_text, rest, out);
  if (first == "bench-data") return run(commands.bench_data, bench_data_fields, bench_data_text, rest, out);
  if (first == "pack") return run(commands.pack, pack_fields, pack_text, rest, out);
  const auto options = parse_train(rest);
  if (options) return commands.train(*options);
  TrainOptions defaults;
  out << help_text(train_text, train_fields(defaults));
  return 0;
}

// Messages of other libraries may span lines; ours is one.
std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20; }, ' ');
  return text;
}

}  // namespace

int dispatch(const std::vector<std::string>& arguments, const Commands& commands, std::ostream& out,
             std::ostream& err) {
  try {
    return choose(arguments, commands, out);
  } catch (const Error& error) {
    err << "error: " << error.what() << std::endl;
    return 2;
  } catch (const std::bad_alloc&) {
    err << "error: out of memory; try a smaller --batch-size" << std::endl;
    return 1;
  } catch (const std::exception& error) {
    err << "error: unexpected: " << one_line(error.what()) << std::endl;
    return 1;
  }
}

TrainOptions train_options(const std::vector<std::string>& arguments) {
  return parse_train(arguments).value_or(TrainOptions{});
}

}  // namespace qtrain::cli
