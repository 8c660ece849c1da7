#include "data/augment/beta.h"

#include <cmath>

namespace qtrain::data {

double draw_log_gamma(RandomStream& random, double shape) {
  // gamma(a) = gamma(a + 1) * U^(1/a) for shapes that the method doesn't take.
  double log_factor = 0;
  if (shape < 1) {
    log_factor = std::log(1 - random.uniform()) / shape;
    shape += 1;
  }
  // d v with v = (1 + c x)^3 for normal x is nearly gamma; the rest is rejected.
  const double d = shape - 1.0 / 3.0;
  const double c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = random.normal();
    const double root = 1 + c * x;
    const double log_u = std::log(1 - random.uniform());
    if (root <= 0) continue;
    const double v = root * root * root;
    if (log_u < 0.5 * x * x + d - d * v + d * std::log(v)) return log_factor + std::log(d * v);
  }
}

double draw_beta(RandomStream& random, double a, double b) {
  const double x = draw_log_gamma(random, a);
  const double y = draw_log_gamma(random, b);
  return 1 / (1 + std::exp(y - x));
}

}  // namespace qtrain::data
