// qtrain list: what there is, with options and defaults.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/model_setup.h"
#include "data/sets/open.h"
#include "engine/core/error.h"
#include "quant/registry.h"
#include "zoo/registry.h"

namespace qtrain::cli {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<std::string>;

// Columns as wide as their widest cell, two spaces apart.
void print_table(const std::vector<Row>& rows, const std::string& indent) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i + 1 < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const Row& row : rows) {
    std::string line = indent;
    for (std::size_t i = 0; i < row.size(); ++i)
      line += i + 1 < row.size() ? fmt::format("{:<{}}  ", row[i], widths[i]) : row[i];
    std::cout << line.substr(0, line.find_last_not_of(' ') + 1) << "\n";
  }
}

std::string text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// --- models
// -----------------------------------------------------------------------------------------------------

Json list_models() {
  Json all = Json::array();
  for (const zoo::ModelInfo& model : zoo::models())
    all.push_back({{"name", model.name},
                   {"description", model.description},
                   {"image_size", model.image_size},
                   {"num_classes", model.num_classes}});
  return all;
}

void print_models(const Json& all) {
  std::vector<Row> rows = {{"MODEL", "IMAGES", "CLASSES", "DESCRIPTION"}};
  for (const Json& m : all)
    rows.push_back({text(m["name"]), fmt::format("{0}x{0}", text(m["image_size"])), text(m["num_classes"]),
                    text(m["description"])});
  print_table(rows, "");
  std::cout << "Other image sizes and numbers of classes work too; the data set decides.\n";
}

// --- quantizers
// -------------------------------------------------------------------------------------------------

std::string_view type_name(quant::OptionType type) {
  switch (type) {
    case quant::OptionType::boolean:
      return "on|off";
    case quant::OptionType::integer:
      return "N";
    case quant::OptionType::real:
      return "X";
    case quant::OptionType::integers:
      return "N,N,...";
    case quant::OptionType::choice:
      break;
  }
  return "choice";
}

Json describe(const std::vector<quant::OptionSpec>& specs) {
  Json all = Json::array();
  for (const quant::OptionSpec& spec : specs) {
    Json entry = {{"name", spec.name},
                  {"type", type_name(spec.type)},
                  {"default", spec.default_value},
                  {"help", spec.help}};
    if (!spec.choices.empty()) entry["choices"] = spec.choices;
    all.push_back(entry);
  }
  return all;
}

Json describe(const quant::EdgeRule& rule) {
  return {{"quantize", rule.quantize},
          {"quantize_input", rule.quantize_input},
          {"least_weight_bits", rule.least_weight_bits}};
}

Json list_quantizers() {
  Json all = Json::array();
  for (const quant::QuantizerInfo* info : quant::quantizers()) {
    Json roles = Json::object();
    for (const quant::Role role : info->roles)
      roles[std::string(quant::name_of(role))] = describe(info->options(role));
    all.push_back({{"name", info->name},
                   {"summary", info->summary},
                   {"source", info->source},
                   {"options", roles},
                   {"first_layer", describe(info->first_layer)},
                   {"last_layer", describe(info->last_layer)}});
  }
  return all;
}

std::string rule_text(const Json& rule) {
  if (!rule["quantize"].get<bool>()) return "float";
  std::string parts = rule["quantize_input"].get<bool>() ? "" : "input not quantized";
  if (rule["least_weight_bits"] >= quant::float_bits)
    parts += fmt::format("{}weights float", parts.empty() ? "" : ", ");
  else if (rule["least_weight_bits"] > 1)
    parts += fmt::format("{}weights of at least {} bits", parts.empty() ? "" : ", ",
                         text(rule["least_weight_bits"]));
  return parts.empty() ? "like the others" : parts;
}

void print_quantizers(const Json& all) {
  for (const Json& q : all) {
    std::cout << fmt::format("{}: {}\n", text(q["name"]), text(q["summary"]));
    if (!text(q["source"]).empty()) std::cout << fmt::format("  source: {}\n", text(q["source"]));
    std::cout << fmt::format("  first layer: {}; last layer: {}\n", rule_text(q["first_layer"]),
                             rule_text(q["last_layer"]));
    std::vector<Row> rows;
    for (const auto& [role, options] : q["options"].items())
      for (const Json& o : options) {
        const std::string values =
            o.contains("choices")
                ? fmt::format("{}", fmt::join(o["choices"].get<std::vector<std::string>>(), "|"))
                : text(o["type"]);
        rows.push_back({fmt::format("--set {}.{}={}", role, text(o["name"]), text(o["default"])), values,
                        text(o["help"])});
      }
    print_table(rows, "  ");
  }
  std::cout << "Values shown are the defaults; `--set NAME=VALUE` sets an option for all its roles.\n";
}

// --- data sets
// --------------------------------------------------------------------------------------------------

Json list_datasets() {
  Json all = Json::array();
  for (const data::DatasetKind& kind : data::dataset_kinds())
    all.push_back({{"data", kind.form}, {"help", kind.help}});
  return all;
}

void print_datasets(const Json& all) {
  std::vector<Row> rows = {{"--data", "WHAT"}};
  for (const Json& d : all) rows.push_back({text(d["data"]), text(d["help"])});
  print_table(rows, "");
}

// --- optimizers and schedules
// -----------------------------------------------------------------------------------

// A value of a training flag, and the flags that it heeds.
struct Choice {
  std::string name;
  std::string summary;
  std::vector<std::string> flags;
};

const std::vector<Choice> optimizers = {
    {"sgd",
     "stochastic gradient descent, torch.optim.SGD",
     {"lr", "momentum", "dampening", "nesterov", "weight-decay", "weight-decay-on"}},
    {"adam",
     "Kingma and Ba 2015, torch.optim.Adam",
     {"lr", "betas", "eps", "weight-decay", "weight-decay-on"}},
    {"adamw",
     "Loshchilov and Hutter 2019, torch.optim.AdamW",
     {"lr", "betas", "eps", "weight-decay", "weight-decay-on"}},
    {"rmsprop", "torch.optim.RMSprop", {"lr", "alpha", "momentum", "eps", "weight-decay", "weight-decay-on"}},
};

const std::vector<Choice> schedules = {
    {"constant", "the same rate throughout", {"warmup-epochs", "warmup-lr-factor"}},
    {"multistep",
     "times gamma at each milestone",
     {"milestones", "gamma", "warmup-epochs", "warmup-lr-factor"}},
    {"cosine", "half a cosine down to lr-min", {"lr-min", "warmup-epochs", "warmup-lr-factor"}},
    {"linear", "a straight line down to lr-min", {"lr-min", "warmup-epochs", "warmup-lr-factor"}},
    {"exponential", "times gamma per epoch", {"gamma", "warmup-epochs", "warmup-lr-factor"}},
    {"polynomial", "(1 - t)^power down to lr-min", {"lr-min", "power", "warmup-epochs", "warmup-lr-factor"}},
};

Json list_choices(const std::string& flag, const std::vector<Choice>& choices) {
  TrainOptions defaults;
  const Fields fields = train_fields(defaults);
  const auto field = [&](const std::string& name) -> const Field& {
    return *std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == name; });
  };
  Json all = Json::array();
  for (const Choice& choice : choices) {
    Json options = Json::array();
    for (const std::string& name : choice.flags)
      options.push_back({{"name", name}, {"default", text_of(field(name))}, {"help", field(name).help}});
    all.push_back({{"name", choice.name},
                   {"summary", choice.summary},
                   {"default", choice.name == text_of(field(flag))},
                   {"options", options}});
  }
  return all;
}

void print_choices(const std::string& flag, const Json& all) {
  std::vector<Row> rows = {{"--" + flag, "WHAT", "FLAGS AND DEFAULTS"}};
  for (const Json& c : all) {
    std::string options;
    for (const Json& o : c["options"])
      options += fmt::format("{}--{} {}", options.empty() ? "" : " ", text(o["name"]),
                             text(o["default"]).empty() ? "..." : text(o["default"]));
    rows.push_back(
        {text(c["name"]) + (c["default"].get<bool>() ? " (default)" : ""), text(c["summary"]), options});
  }
  print_table(rows, "");
}

// --- the table
// --------------------------------------------------------------------------------------------------

struct Listing {
  std::string what;
  std::function<Json()> make;
  std::function<void(const Json&)> print;
};

std::vector<Listing> listings() {
  const auto of = [](const std::string& flag, const std::vector<Choice>& choices) {
    return Listing{flag + "s", [=, &choices] { return list_choices(flag, choices); },
                   [=](const Json& all) { print_choices(flag, all); }};
  };
  return {{"models", list_models, print_models},
          {"quantizers", list_quantizers, print_quantizers},
          {"datasets", list_datasets, print_datasets},
          of("optimizer", optimizers),
          of("schedule", schedules)};
}

}  // namespace

int run_list(const ListOptions& options) {
  load_plugins(options.plugin);
  Json report = Json::object();
  bool first = true;
  for (const Listing& listing : listings()) {
    if (!options.what.empty() && options.what != listing.what) continue;
    const Json found = listing.make();
    report[listing.what] = found;
    if (options.json) continue;
    if (!first) std::cout << "\n";
    first = false;
    listing.print(found);
  }
  if (options.json) std::cout << report.dump(2) << "\n";
  return 0;
}

}  // namespace qtrain::cli
