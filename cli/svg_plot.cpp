#include "cli/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace qtrain::cli {
namespace {

constexpr double left_margin = 52;
constexpr double right_margin = 16;
constexpr double legend_row = 20;
constexpr double axis_height = 38;  // tick labels and the axis's name
constexpr double panel_gap = 14;
constexpr double character_width = 6.8;  // at 12 pixels; generous

// The first column of colours is for light surroundings, the second for dark ones.
constexpr std::string_view style = R"(  <style>
    .paper { fill: #ffffff; }
    text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px; fill: #1d2733; }
    .title { font-size: 16px; font-weight: 600; }
    .head { font-size: 14px; font-weight: 600; }
    .note, .tick { font-size: 11px; fill: #5b6673; }
    .grid { stroke: #e6eaef; stroke-width: 1; }
    .zero { stroke: #b4bdc8; stroke-width: 1; }
    .axis { stroke: #5b6673; stroke-width: 1; }
    .diagonal { stroke: #b4bdc8; stroke-width: 1.2; stroke-dasharray: 4 4; }
    path { fill: none; stroke-width: 2; stroke-linejoin: round; }
    .thin { stroke-width: 1.3; opacity: 0.75; }
    .s0 { stroke: #0b62c4; } .s1 { stroke: #c2410c; } .s2 { stroke: #15803d; }
    .s3 { stroke: #9333ea; } .s4 { stroke: #be185d; } .s5 { stroke: #0e7490; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #12171e; }
      text { fill: #e3e9f0; }
      .note, .tick { fill: #9aa6b4; }
      .grid { stroke: #252d38; }
      .zero, .diagonal { stroke: #4d5967; }
      .axis { stroke: #9aa6b4; }
      .s0 { stroke: #6cb2ff; } .s1 { stroke: #ff9d5c; } .s2 { stroke: #5fd38a; }
      .s3 { stroke: #c79bff; } .s4 { stroke: #ff82b2; } .s5 { stroke: #4fd0e6; }
    }
  </style>
)";

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

struct Span {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

// What the y axis shows: all values, zero, and some air.
Span shown(const PlotPanel& panel) {
  Span span;
  for (const PlotSeries& s : panel.series)
    for (const float y : s.y) span.add(static_cast<double>(y));
  if (span.empty()) span = {0, 1};
  span.add(0);
  if (span.high - span.low < 1e-30) span.high = span.low + 1;
  const double air = 0.07 * (span.high - span.low);
  return {span.low < 0 ? span.low - air : span.low - air / 2, span.high > 0 ? span.high + air : air};
}

// From values to pixels.
struct Scale {
  double from, to;  // values
  double from_pixel, to_pixel;
  double operator()(double value) const {
    return from_pixel + (value - from) / (to - from) * (to_pixel - from_pixel);
  }
};

struct Point {
  double x, y;
};

// Leaves out the points that lie on the line between their neighbours, to a twentieth of a pixel.
std::vector<Point> simplified(const std::vector<Point>& points) {
  std::vector<Point> kept;
  for (std::size_t anchor = 0; anchor < points.size();) {
    kept.push_back(points[anchor]);
    const Point a = points[anchor];
    std::size_t end = anchor + 1;
    // The slopes that pass all points since the anchor closely enough.
    double steepest = std::numeric_limits<double>::infinity();
    double flattest = -steepest;
    while (end + 1 < points.size()) {
      const double dx = points[end].x - a.x;
      flattest = std::max(flattest, (points[end].y - 0.05 - a.y) / dx);
      steepest = std::min(steepest, (points[end].y + 0.05 - a.y) / dx);
      const double next = (points[end + 1].y - a.y) / (points[end + 1].x - a.x);
      if (next < flattest || next > steepest) break;
      ++end;
    }
    anchor = end;
  }
  return kept;
}

// 12.30 -> "12.3", 7.00 -> "7".
std::string pixel(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

std::string path_data(const PlotSeries& series, const Scale& x, const Scale& y) {
  std::string data;
  std::vector<Point> run;
  const auto flush = [&] {
    bool first = true;
    for (const Point& p : simplified(run)) {
      data += fmt::format("{}{} {}", first ? "M" : "L", pixel(p.x), pixel(p.y));
      first = false;
    }
    run.clear();
  };
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    const double value = static_cast<double>(series.y[i]);
    if (std::isfinite(value)) {
      run.push_back({x(static_cast<double>(series.x[i])), y(value)});
    } else {
      flush();
    }
  }
  flush();
  return data;
}

std::string tick_text(double value) {
  return fmt::format("{:g}", std::abs(value) < 1e-12 ? 0.0 : value);
}

class Drawing {
 public:
  void line(const char* kind, double x1, double y1, double x2, double y2) {
    body_ += fmt::format("  <line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", kind, pixel(x1),
                         pixel(y1), pixel(x2), pixel(y2));
  }
  void text(const char* kind, const char* anchor, double x, double y, std::string_view content) {
    body_ += fmt::format(
        "  <text{}{} x=\"{}\" y=\"{}\">{}</text>\n", *kind == 0 ? "" : fmt::format(" class=\"{}\"", kind),
        *anchor == 0 ? "" : fmt::format(" text-anchor=\"{}\"", anchor), pixel(x), pixel(y), escaped(content));
  }
  void path(const PlotSeries& series, const Scale& x, const Scale& y) {
    body_ += fmt::format("  <path class=\"s{}{}\" d=\"{}\"/>\n", series.colour % plot_colours,
                         series.thin ? " thin" : "", path_data(series, x, y));
  }

  // Returns where the stack ends.
  double stack(const PlotStack& stack, double left, double top, double width) {
    const double first = left + left_margin;
    const double last = left + width - right_margin;
    double at = top;
    if (!stack.title.empty()) text("head", "", first, at += 16, stack.title);
    if (!stack.note.empty()) text("note", "", first, at += 16, stack.note);
    if (at > top) at += 8;
    Span range;
    for (const PlotPanel& panel : stack.panels)
      for (const PlotSeries& s : panel.series)
        for (const float v : s.x) range.add(static_cast<double>(v));
    if (range.empty()) range = {0, 1};
    if (range.low == range.high) range = {range.low - 1, range.high + 1};
    const Scale x{range.low, range.high, first, last};
    for (const PlotPanel& panel : stack.panels) {
      const bool lowest = &panel == &stack.panels.back();
      at = panel_at(panel, x, at, lowest ? stack.x_label : "", lowest);
    }
    return at;
  }

  const std::string& body() const { return body_; }

 private:
  void legend(const PlotPanel& panel, double left, double right, double top) {
    double x = left;
    double y = top + 14;
    if (!panel.title.empty()) {
      text("", "", x, y, panel.title);
      x += static_cast<double>(panel.title.size()) * character_width + 14;
    }
    std::size_t row = 1;
    for (const PlotSeries& s : panel.series) {
      if (s.label.empty()) continue;
      const double width = 26 + static_cast<double>(s.label.size()) * character_width;
      if (x + width > right && row < panel.legend_rows) {
        ++row;
        x = left;
        y += legend_row;
      }
      body_ += fmt::format("  <path class=\"s{}\" d=\"M{} {}h16\"/>\n", s.colour % plot_colours, pixel(x),
                           pixel(y - 4));
      text("", "", x + 21, y, s.label);
      x += width + 10;
    }
  }

  double panel_at(const PlotPanel& panel, const Scale& x, double top, const std::string& x_label,
                  bool with_ticks) {
    legend(panel, x.from_pixel, x.to_pixel, top);
    const double ceiling = top + legend_row * static_cast<double>(panel.legend_rows);
    const double floor = ceiling + panel.height;
    const Span values = shown(panel);
    const Scale y{values.low, values.high, floor, ceiling};
    for (const double tick : axis_ticks(values.low, values.high, panel.height < 120 ? 3 : 5)) {
      line(tick == 0 ? "zero" : "grid", x.from_pixel, y(tick), x.to_pixel, y(tick));
      text("tick", "end", x.from_pixel - 6, y(tick) + 4, tick_text(tick));
    }
    const std::size_t ticks = x.to_pixel - x.from_pixel < 250 ? 4 : 8;
    for (const double tick : axis_ticks(x.from, x.to, ticks)) {
      line(tick == 0 ? "zero" : "grid", x(tick), ceiling, x(tick), floor);
      if (with_ticks) text("tick", "middle", x(tick), floor + 16, tick_text(tick));
    }
    if (panel.diagonal) {
      const double from = std::max(x.from, values.low);
      const double to = std::min(x.to, values.high);
      if (from < to) line("diagonal", x(from), y(from), x(to), y(to));
    }
    line("axis", x.from_pixel, ceiling, x.from_pixel, floor);
    line("axis", x.from_pixel, floor, x.to_pixel, floor);
    for (const PlotSeries& s : panel.series) path(s, x, y);
    if (!x_label.empty()) text("", "middle", (x.from_pixel + x.to_pixel) / 2, floor + 32, x_label);
    return floor + (with_ticks ? axis_height - (x_label.empty() ? 14 : 0) : panel_gap);
  }

  std::string body_;
};

}  // namespace

std::vector<double> axis_ticks(double low, double high, std::size_t count) {
  const double rough = (high - low) / static_cast<double>(std::max<std::size_t>(count, 1));
  if (!(rough > 0) || !std::isfinite(rough)) return {};
  const double magnitude = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * magnitude;
  for (const double nice : {1.0, 2.0, 5.0})
    if (nice * magnitude >= rough * (1 - 1e-9)) {
      step = nice * magnitude;
      break;
    }
  std::vector<double> ticks;
  const double last = std::floor(high / step + 1e-9);
  // + 0.0: no minus zero.
  for (double i = std::ceil(low / step - 1e-9); i <= last; ++i) ticks.push_back(i * step + 0.0);
  return ticks;
}

std::string draw_svg(const PlotFigure& figure) {
  constexpr double edge = 12;
  const std::size_t columns =
      std::clamp<std::size_t>(figure.columns, 1, std::max<std::size_t>(figure.stacks.size(), 1));
  const double width = 2 * edge + static_cast<double>(columns) * figure.stack_width;
  Drawing drawing;
  double row_top = edge;
  if (!figure.title.empty()) {
    drawing.text("title", "", edge + 8, row_top + 18, figure.title);
    row_top += 34;
  }
  double row_end = row_top;
  for (std::size_t i = 0; i < figure.stacks.size(); ++i) {
    const std::size_t column = i % columns;
    if (column == 0) row_top = i == 0 ? row_top : row_end + 10;
    const double left = edge + static_cast<double>(column) * figure.stack_width;
    row_end = std::max(row_end, drawing.stack(figure.stacks[i], left, row_top, figure.stack_width));
  }
  const double height = row_end + edge;
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
             "role=\"img\" aria-labelledby=\"title\">\n  <title id=\"title\">{2}</title>\n",
             pixel(width), pixel(height), escaped(figure.title)) +
         std::string(style) +
         fmt::format("  <rect class=\"paper\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n", pixel(width),
                     pixel(height)) +
         drawing.body() + "</svg>\n";
}

}  // namespace qtrain::cli
