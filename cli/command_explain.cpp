// qtrain explain: what a quantizer does to numbers, as a picture or as numbers.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "cli/commands.h"
#include "cli/model_setup.h"
#include "cli/quantizer_figure.h"
#include "engine/core/error.h"
#include "engine/io/atomic_file.h"
#include "quant/registry.h"

namespace qtrain::cli {
namespace {

using Json = nlohmann::ordered_json;
using quant::Role;

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    begin = end + 1;
  }
  return names;
}

// What was asked for; nothing: weights and activations, or whatever the quantizer has.
std::vector<Role> roles_of(const quant::QuantizerInfo& info, const std::string& asked) {
  if (asked != "auto") return {quant::parse_role(asked)};
  std::vector<Role> roles;
  for (const Role role : {Role::weight, Role::activation})
    if (info.has_role(role)) roles.push_back(role);
  return roles.empty() ? info.roles : roles;
}

// The value of an option for one role: of `weight.NAME` before that of `NAME`. Notes which keys were of use.
std::map<std::string, std::string> options_for(const quant::QuantizerInfo& info, Role role,
                                               const std::vector<Assignment>& set,
                                               std::set<std::string>& used) {
  std::map<std::string, std::string> options;
  for (const quant::OptionSpec& spec : info.options(role))
    for (const std::string& key : {spec.name, fmt::format("{}.{}", quant::name_of(role), spec.name)})
      for (const Assignment& a : set)
        if (a.key == key) {
          options[spec.name] = a.value;
          used.insert(key);
        }
  return options;
}

void check_all_used(const std::vector<Assignment>& set, const std::set<std::string>& used,
                    const std::vector<CurveRequest>& requests) {
  std::vector<std::string> names;
  for (const CurveRequest& r : requests)
    for (const quant::OptionSpec& spec : quant::find_quantizer(r.quantizer).options(r.role))
      names.insert(names.end(), {spec.name, fmt::format("{}.{}", quant::name_of(r.role), spec.name)});
  for (const Assignment& a : set)
    if (!used.contains(a.key))
      throw ValueError({"explain", fmt::format("nothing that is drawn has an option '{}'", a.key), "", "",
                        suggest(a.key, names, "see `qtrain list quantizers`")});
}

std::vector<CurveRequest> requests_of(const ExplainOptions& options) {
  std::vector<CurveRequest> requests;
  std::set<std::string> used;
  for (const std::string& name : split_names(options.quant)) {
    const quant::QuantizerInfo& info = quant::find_quantizer(name);
    for (const Role role : roles_of(info, options.role)) {
      CurveRequest request{.quantizer = name, .role = role, .bits = static_cast<int>(options.bits)};
      request.options = options_for(info, role, options.set, used);
      if (!options.range.empty()) request.range = {options.range[0], options.range[1]};
      request.points = options.points;
      requests.push_back(request);
    }
  }
  check_all_used(options.set, used, requests);
  return requests;
}

// Curves over each other share their range: what shows all of them.
void share_ranges(std::vector<CurveRequest>& requests) {
  for (const Role role : quant::all_roles) {
    std::optional<CurveRange> shared;
    for (const CurveRequest& r : requests) {
      if (r.role != role) continue;
      const CurveRange own = r.range ? *r.range : natural_range(r);
      shared = shared ? CurveRange{std::min(shared->low, own.low), std::max(shared->high, own.high)} : own;
    }
    for (CurveRequest& r : requests)
      if (r.role == role) r.range = shared;
  }
}

Json json_of(const std::vector<QuantizerCurves>& all) {
  Json list = Json::array();
  for (const QuantizerCurves& c : all) {
    Json parameters = Json::array();
    for (const ParameterCurve& p : c.parameters)
      parameters.push_back({{"name", p.name}, {"value", p.value}, {"dy", p.gradient}});
    list.push_back({{"quantizer", c.request.quantizer},
                    {"role", quant::name_of(c.request.role)},
                    {"bits", c.request.bits},
                    {"options", c.request.options},
                    {"x", c.x},
                    {"y", c.y},
                    {"dy_dx", c.gradient},
                    {"parameters", parameters}});
  }
  return list;
}

// One row a point. Columns of parameters that a quantizer doesn't have are empty.
std::string csv_of(const std::vector<QuantizerCurves>& all) {
  std::vector<std::string> parameters;
  for (const QuantizerCurves& c : all)
    for (const ParameterCurve& p : c.parameters)
      if (std::ranges::find(parameters, p.name) == parameters.end()) parameters.push_back(p.name);
  std::string text = "quantizer,role,x,y,dy_dx";
  for (const std::string& name : parameters) text += ",dy_d" + name;
  text += "\n";
  for (const QuantizerCurves& c : all)
    for (std::size_t i = 0; i < c.x.size(); ++i) {
      text += fmt::format("{},{},{},{},{}", c.request.quantizer, quant::name_of(c.request.role), c.x[i],
                          c.y[i], c.gradient[i]);
      for (const std::string& name : parameters) {
        const auto own = std::ranges::find(c.parameters, name, &ParameterCurve::name);
        text += own == c.parameters.end() ? "," : fmt::format(",{}", own->gradient[i]);
      }
      text += "\n";
    }
  return text;
}

void write_text(const std::string& path, const std::string& text) {
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

}  // namespace

int run_explain(const ExplainOptions& options) {
  if (options.output.empty() && options.csv.empty() && !options.json)
    throw ValueError({"explain", "nothing to write", "", "--output FILE.svg, --csv FILE or --json", ""});
  load_plugins(options.plugin);
  std::vector<QuantizerCurves> all;
  std::vector<CurveRequest> requests = requests_of(options);
  if (split_names(options.quant).size() <= plot_colours) share_ranges(requests);
  for (const CurveRequest& request : requests) all.push_back(sample_curves(request));
  if (!options.output.empty()) write_text(options.output, draw_svg(figure_of(all)));
  if (!options.csv.empty()) write_text(options.csv, csv_of(all));
  if (options.json) {
    std::cout << json_of(all).dump() << "\n";
    return 0;
  }
  for (const QuantizerCurves& c : all) {
    std::string learned;
    for (const ParameterCurve& p : c.parameters)
      learned += fmt::format("{}{} = {:.6g}", learned.empty() ? "; learned " : ", ", p.name, p.value);
    std::cout << fmt::format("{}  {}; x from {} to {}{}\n", c.request.quantizer, request_text(c.request),
                             c.x.front(), c.x.back(), learned);
  }
  return 0;
}

}  // namespace qtrain::cli
