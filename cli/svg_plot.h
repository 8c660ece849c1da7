// Line charts as SVG: no scripts, no fonts or files from outside, colours for light and dark surroundings.
#pragma once

#include <string>
#include <vector>

namespace qtrain::cli {

// A line through (x[i], y[i]); points that are not finite interrupt it.
struct PlotSeries {
  std::string label;  // in the legend; "" = not there
  std::vector<float> x;
  std::vector<float> y;
  std::size_t colour = 0;
  bool thin = false;
};

struct PlotPanel {
  std::string title;
  std::vector<PlotSeries> series;
  bool diagonal = false;        // a dashed y = x
  double height = 150;          // of the plotting area
  std::size_t legend_rows = 1;  // kept free above the panel; the title is in the first
};

// Panels above each other over one x axis.
struct PlotStack {
  std::string title;
  std::string note;  // under the title, small
  std::string x_label;
  std::vector<PlotPanel> panels;
};

// Stacks side by side, in rows.
struct PlotFigure {
  std::string title;
  std::vector<PlotStack> stacks;
  std::size_t columns = 2;
  double stack_width = 460;
};

inline constexpr std::size_t plot_colours = 6;

std::string draw_svg(const PlotFigure& figure);

// Round numbers from low to high, at most about `count`.
std::vector<double> axis_ticks(double low, double high, std::size_t count);

}  // namespace qtrain::cli
