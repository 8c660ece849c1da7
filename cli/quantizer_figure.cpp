#include "cli/quantizer_figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace qtrain::cli {
namespace {

std::string plural(quant::Role role) {
  return role == quant::Role::bias ? "biases" : fmt::format("{}s", quant::name_of(role));
}

std::string bits_text(int bits) {
  return fmt::format("{} bit{}", bits, bits == 1 ? "" : "s");
}

void add_unique(std::vector<std::string>& list, const std::string& text) {
  if (std::ranges::find(list, text) == list.end()) list.push_back(text);
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, ", "));
}

// Rows that the labels need, at about 58 characters a row.
std::size_t legend_rows(const PlotPanel& panel) {
  std::size_t characters = panel.title.size();
  for (const PlotSeries& s : panel.series) characters += s.label.empty() ? 0 : s.label.size() + 5;
  return 1 + characters / 58;
}

// All curves of one role over each other.
PlotStack stack_of(const std::vector<const QuantizerCurves*>& curves) {
  const bool several = curves.size() > 1;
  const CurveRequest& first = curves.front()->request;
  const std::string x_label = "x, one of the " + plural(first.role);
  PlotPanel output{.title = "y", .series = {}, .diagonal = true, .height = 190};
  PlotPanel slope{.title = "dy/dx", .series = {}, .height = 110};
  PlotPanel learned{.title = "dy/dparameter", .series = {}, .height = 110};
  std::vector<std::string> settings;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const QuantizerCurves& c = *curves[i];
    const std::string label = several ? c.request.quantizer : "";
    add_unique(settings, bits_text(c.request.bits));
    for (const auto& [key, value] : c.request.options) add_unique(settings, key + "=" + value);
    output.series.push_back({label, c.x, c.y, i});
    slope.series.push_back({label, c.x, c.gradient, several ? i : 1});
    for (const ParameterCurve& p : c.parameters) {
      const std::string name =
          several ? c.request.quantizer + " " + p.name : fmt::format("{} = {:.4g}", p.name, p.value);
      learned.series.push_back({name, c.x, p.gradient, several ? i : 2 + learned.series.size()});
    }
  }
  for (PlotPanel* const panel : {&output, &slope, &learned}) panel->legend_rows = legend_rows(*panel);
  PlotStack stack{plural(first.role), "", x_label, {output, slope}};
  stack.note =
      fmt::format("{}; {} points as one tensor; dashed: y = x", joined(settings), curves.front()->x.size());
  if (!learned.series.empty()) stack.panels.push_back(learned);
  return stack;
}

PlotStack small_stack_of(const QuantizerCurves& c) {
  PlotPanel panel{.title = "", .series = {}, .height = 110, .legend_rows = 0};
  panel.series.push_back({"", c.x, c.gradient, 1, true});
  panel.series.push_back({"", c.x, c.y, 0});
  return {c.request.quantizer, plural(c.request.role) + ", " + bits_text(c.request.bits), "", {panel}};
}

}  // namespace

std::string request_text(const CurveRequest& request) {
  std::string text = plural(request.role) + ", " + bits_text(request.bits);
  for (const auto& [key, value] : request.options) text += fmt::format(", {}={}", key, value);
  return text;
}

PlotFigure small_charts_of(const std::vector<QuantizerCurves>& all) {
  PlotFigure figure;
  figure.title = "y(x), and dy/dx as the thin line";
  figure.columns = 4;
  figure.stack_width = 225;
  for (const QuantizerCurves& c : all) figure.stacks.push_back(small_stack_of(c));
  return figure;
}

PlotFigure figure_of(const std::vector<QuantizerCurves>& all) {
  std::vector<std::string> names;
  for (const QuantizerCurves& c : all) add_unique(names, c.request.quantizer);
  if (names.size() > plot_colours) return small_charts_of(all);
  PlotFigure figure;
  figure.title = joined(names);
  for (const quant::Role role : quant::all_roles) {
    std::vector<const QuantizerCurves*> of_role;
    for (const QuantizerCurves& c : all)
      if (c.request.role == role) of_role.push_back(&c);
    if (!of_role.empty()) figure.stacks.push_back(stack_of(of_role));
  }
  return figure;
}

}  // namespace qtrain::cli
