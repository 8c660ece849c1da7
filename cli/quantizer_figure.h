// Curves of quantizers as a picture.
#pragma once

#include "cli/quantizer_curves.h"
#include "cli/svg_plot.h"

namespace qtrain::cli {

// Each role of one quantizer has a stack of its own: y(x), dy/dx, and dy/dparameter where something is
// learned. Up to plot_colours quantizers are drawn over each other; more get small charts side by side.
PlotFigure figure_of(const std::vector<QuantizerCurves>& all);

PlotFigure small_charts_of(const std::vector<QuantizerCurves>& all);

// "weights, 2 bits, scheme=original"
std::string request_text(const CurveRequest& request);

}  // namespace qtrain::cli
