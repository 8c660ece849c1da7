#include "cli/svg_plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace qtrain::cli {
namespace {

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// The d of every path that is no part of a legend (those have an h).
std::vector<std::string> curves_in(const std::string& svg) {
  const std::string start = " d=\"";
  std::vector<std::string> found;
  for (std::size_t at = svg.find(start); at != std::string::npos; at = svg.find(start, at + 1)) {
    const std::size_t begin = at + start.size();
    const std::string path = svg.substr(begin, svg.find('"', begin) - begin);
    if (path.find('h') == std::string::npos) found.push_back(path);
  }
  return found;
}

PlotFigure figure_with(const PlotSeries& series) {
  PlotPanel panel{.title = "y"};
  panel.series.push_back(series);
  return {.title = "figure", .stacks = {{"stack", "note", "x", {panel}}}};
}

TEST(SvgPlot, TicksAreRoundAndInside) {
  EXPECT_EQ(axis_ticks(-2, 2, 4), (std::vector<double>{-2, -1, 0, 1, 2}));
  EXPECT_EQ(axis_ticks(0, 1, 5).size(), 6U);
  EXPECT_EQ(axis_ticks(-0.3, 9.7, 5), (std::vector<double>{0, 2, 4, 6, 8}));
  EXPECT_EQ(axis_ticks(3e-9, 7e-9, 4).size(), 5U);
  EXPECT_TRUE(axis_ticks(1, 1, 5).empty());
  EXPECT_TRUE(axis_ticks(0, std::numeric_limits<double>::infinity(), 5).empty());
  for (const double tick : axis_ticks(-1, 1, 4)) EXPECT_FALSE(tick == 0 && std::signbit(tick));
}

TEST(SvgPlot, StraightLinesAreTwoPoints) {
  PlotSeries line{.label = "line", .x = {}, .y = {}};
  PlotSeries step = line;
  for (int i = 0; i <= 100; ++i) {
    line.x.push_back(static_cast<float>(i));
    line.y.push_back(3 * static_cast<float>(i));
    step.x.push_back(static_cast<float>(i));
    step.y.push_back(i < 50 ? 0.0F : 1.0F);
  }
  const std::vector<std::string> straight = curves_in(draw_svg(figure_with(line)));
  ASSERT_EQ(straight.size(), 1U);
  EXPECT_EQ(count_of(straight[0], "L"), 1U) << straight[0];
  const std::vector<std::string> stepped = curves_in(draw_svg(figure_with(step)));
  ASSERT_EQ(stepped.size(), 1U);
  EXPECT_EQ(count_of(stepped[0], "L"), 3U) << stepped[0];
}

TEST(SvgPlot, ValuesThatAreNotFiniteInterruptTheLine) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::string svg =
      draw_svg(figure_with({.label = "", .x = {0, 1, 2, 3, 4, 5}, .y = {0, 1, nan, 1, 0, infinity}}));
  ASSERT_EQ(curves_in(svg).size(), 1U);
  EXPECT_EQ(count_of(curves_in(svg)[0], "M"), 2U) << svg;
  EXPECT_EQ(count_of(svg, "nan") + count_of(svg, "inf"), 0U);
}

TEST(SvgPlot, DrawsWhateverItGets) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const PlotSeries& series :
       {PlotSeries{.label = "", .x = {}, .y = {}}, PlotSeries{.label = "", .x = {1}, .y = {1}},
        PlotSeries{.label = "", .x = {0, 1}, .y = {nan, nan}},
        PlotSeries{.label = "", .x = {0, 1}, .y = {0, 0}},
        PlotSeries{.label = "", .x = {0, 1}, .y = {-3e38F, 3e38F}}}) {
    const std::string svg = draw_svg(figure_with(series));
    EXPECT_EQ(count_of(svg, "nan") + count_of(svg, "inf"), 0U) << svg;
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
  }
  EXPECT_TRUE(draw_svg({}).ends_with("</svg>\n"));
}

TEST(SvgPlot, TextIsEscapedAndNothingComesFromOutside) {
  PlotFigure figure = figure_with({.label = "a<b & \"c\"", .x = {0, 1}, .y = {0, 1}});
  figure.title = "<title>";
  const std::string svg = draw_svg(figure);
  EXPECT_NE(svg.find("a&lt;b &amp; &quot;c&quot;"), std::string::npos);
  EXPECT_NE(svg.find("&lt;title&gt;"), std::string::npos);
  EXPECT_NE(svg.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_EQ(count_of(svg, "href") + count_of(svg, "url(") + count_of(svg, "<script"), 0U);
  EXPECT_EQ(count_of(svg, "http"), 1U);  // the name space
}

}  // namespace
}  // namespace qtrain::cli
