// The scalar updates of all optimizers, for one element: p the parameter, g its gradient, the rest its state.
// Written once for every device; run for all parameters in one pass over memory by rule_pass.h. Definitions
// and order of operations are those of torch.optim.
#pragma once

#include <cmath>

#include "engine/core/host_device.h"

namespace qtrain::update_rules {

// d = g + wd p;  v = momentum v + (1 - dampening) d;  p -= lr (nesterov ? d + momentum v : v)
// At a parameter's first step v = d: momentum 0 and dampening 0 on a state of zeros; `momentum_ahead` stays.
struct SgdMomentum {
  float learning_rate;
  float weight_decay;
  float momentum;        // in the recursion of v
  float undamped;        // 1 - dampening
  float momentum_ahead;  // nesterov: the factor of v in the step, else unused
  bool nesterov;

  QTRAIN_HOST_DEVICE void operator()(float& p, float& v, float g) const {
    const float d = g + weight_decay * p;
    v = momentum * v + undamped * d;
    p -= learning_rate * (nesterov ? d + momentum_ahead * v : v);
  }
};

// p -= lr (g + wd p)
struct Sgd {
  float learning_rate;
  float weight_decay;

  QTRAIN_HOST_DEVICE void operator()(float& p, float g) const { p -= learning_rate * (g + weight_decay * p); }
};

// g += wd p;  m = beta1 m + (1 - beta1) g;  s = beta2 s + (1 - beta2) g^2;
// p -= lr / (1 - beta1^t) m / (sqrt(s) / sqrt(1 - beta2^t) + epsilon)
// AdamW: wd = 0 above, and p *= 1 - lr wd beforehand (`shrink`; 1 for Adam).
struct Adam {
  float step_size;  // lr / (1 - beta1^t)
  float weight_decay;
  float shrink;
  float beta1;
  float fresh1;  // 1 - beta1, rounded once
  float beta2;
  float fresh2;
  float root_correction2;  // sqrt(1 - beta2^t)
  float epsilon;

  QTRAIN_HOST_DEVICE void operator()(float& p, float& m, float& s, float gradient) const {
    const float g = gradient + weight_decay * p;
    m = beta1 * m + fresh1 * g;
    s = beta2 * s + fresh2 * g * g;
    p = shrink * p - step_size * m / (sqrtf(s) / root_correction2 + epsilon);
  }
};

// g += wd p;  s = alpha s + (1 - alpha) g^2;  centered: a += (1 - alpha) (g - a) and s - a^2 in place of s
// below; v = momentum v + g / (sqrt(s) + epsilon);  p -= lr v.   a and v are only kept where they are used.
struct RmsProp {
  float learning_rate;
  float weight_decay;
  float alpha;
  float fresh;  // 1 - alpha
  float epsilon;
  float momentum;  // 0 without

  QTRAIN_HOST_DEVICE float decayed(float p, float g) const { return g + weight_decay * p; }
  QTRAIN_HOST_DEVICE void track(float& s, float g) const { s = alpha * s + fresh * g * g; }

  QTRAIN_HOST_DEVICE void operator()(float& p, float& s, float gradient) const {
    const float g = decayed(p, gradient);
    track(s, g);
    p -= learning_rate * g / (sqrtf(s) + epsilon);
  }
  QTRAIN_HOST_DEVICE void operator()(float& p, float& s, float& v, float gradient) const {
    const float g = decayed(p, gradient);
    track(s, g);
    v = momentum * v + g / (sqrtf(s) + epsilon);
    p -= learning_rate * v;
  }
};

struct RmsPropCentered {
  RmsProp rule;

  QTRAIN_HOST_DEVICE float direction(float p, float& s, float& a, float gradient) const {
    const float g = rule.decayed(p, gradient);
    rule.track(s, g);
    a += rule.fresh * (g - a);
    const float variance = s - a * a;
    // In exact arithmetic s >= a^2; rounding may leave less than nothing.
    return g / (sqrtf(variance > 0 ? variance : (variance <= 0 ? 0.0F : variance)) + rule.epsilon);
  }
  QTRAIN_HOST_DEVICE void operator()(float& p, float& s, float& a, float gradient) const {
    p -= rule.learning_rate * direction(p, s, a, gradient);
  }
  QTRAIN_HOST_DEVICE void operator()(float& p, float& s, float& a, float& v, float gradient) const {
    v = rule.momentum * v + direction(p, s, a, gradient);
    p -= rule.learning_rate * v;
  }
};

}  // namespace qtrain::update_rules
