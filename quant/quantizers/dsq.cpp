// dsq: differentiable soft quantization (Gong et al. 2019, arXiv:1908.05033; code of ricky40403/DSQ).
//
// Learned, per tensor: upper, lower, alpha. With R = 2^b - 1 intervals:
//   U = (1 - mu) running_upper + mu upper in training, running_upper in evaluation; L likewise
//   c = clip(x, L, U),  M = max c,  m = min c,  delta = (M - m) / R
//   i = floor((c - m) / delta),  mid = (i + 1/2) delta + m
//   phi = s tanh(k (c - mid)),  s = 1 / (1 - alpha),  k = ln(2 / alpha - 1) / delta
//   y = (i + [phi > 0]) delta + m
// The sign of phi is that of c - mid, so the soft phi shapes the gradient only. Backward takes the rounding
// phi -> +-1 as the identity and i as a constant; everything else is differentiated, M and m too. With
// g = dL/dy, kappa = ln(2 / alpha - 1), u = (c - mid) / delta, tau = tanh(kappa u), q = i + 1/2 + u:
//   e = g s kappa (1 - tau^2) / 2                                        to c directly
//   dL/dM = sum(g (i + [phi > 0]) - e q) / R,  dL/dm = sum(g - e) - dL/dM   shared by the elements there
//   dL/dalpha = delta sum(g tau / (2 (1 - alpha)^2) - e u 2 / (kappa alpha^2 (2 / alpha - 1)))
//   dL/dx = dL/dc where L <= x <= U; beyond U it is collected into dL/dU, and dL/dupper = mu dL/dU
// Where U clips, M is U, and dL/dM goes to the bound. alpha is held in [0.001, 1.999] and 0.001 away from 1;
// beyond the ends its gradient is 0. A tensor whose c are all equal has y = c and e = g. NaN passes.
#include <array>
#include <limits>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/grouped.h"
#include "engine/kernels/math.h"
#include "engine/kernels/scalar_functors.h"
#include "engine/kernels/update.h"
#include "engine/ops/check.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr float least_alpha = 1e-3F;
constexpr float most_alpha = 1.999F;
constexpr float alpha_gap = 1e-3F;  // around 1

// Sums of the pass backward: over all elements; of those at the extremes; of g where x is clipped. In one
// pass they would be more than the registers hold, and the last two seldom need to read all blocks.
enum Total { to_most, to_least, to_alpha, totals };
enum Count { count_most, count_least, counts };
enum Beyond { beyond_upper, beyond_lower, bounds };

// What a forward or backward needs to know of its tensor, computed once before the loop.
struct DsqSetting {
  float least = 0, most = 0;  // of x
  float lower = 0, upper = 0;
  float m = 0, top = 0;        // of c
  float lift = 1, unlift = 1;  // a power of two that keeps tiny and huge ranges within the divisor's
  float delta = 1;             // times lift
  bool flat = false;           // all c are equal
  float kappa = 0, slope = 1;  // those of a flat tensor give y = c and e = g
  float alpha_by_e = 0, alpha_by_g = 0;

  // range = {L, U, -min x, max x}
  QTRAIN_HOST_DEVICE DsqSetting(const float* range, const float* alpha, float intervals)
      : least(-range[2]), most(range[3]), lower(range[0]), upper(range[1]) {
    m = clip(least, lower, upper);
    top = clip(most, lower, upper);
    flat = top == m;
    if (flat) return;
    const float width = top - m;
    lift = width < 1e-10F ? 0x1p100F : (width > 1e25F ? 0x1p-100F : 1.0F);
    unlift = 1.0F / lift;
    delta = (top * lift - m * lift) / intervals;
    float a = clip(*alpha, least_alpha, most_alpha);
    a = fabsf(a - 1.0F) < alpha_gap ? (a > 1.0F ? 1.0F + alpha_gap : 1.0F - alpha_gap) : a;
    kappa = logf(2.0F / a - 1.0F);
    slope = kappa / (1.0F - a) / 2.0F;
    alpha_by_g = 0.5F / ((1.0F - a) * (1.0F - a));
    alpha_by_e = -2.0F / (kappa * a * a * (2.0F / a - 1.0F));
  }
};

// Where the numbers of a setting come from.
struct DsqSource {
  const float* range = nullptr;
  const float* alpha = nullptr;
  float intervals = 1;  // R
  QTRAIN_HOST_DEVICE DsqSetting read() const { return {range, alpha, intervals}; }
};

// The element's place among the levels: q = (c - m) / delta, i = floor(q), u = (c - mid) / delta. With many
// levels, u depends on how mid is rounded, so it is found as in the reference: not as q - i - 1/2.
struct Place {
  float q, i, u;
  QTRAIN_HOST_DEVICE static Place of(float c, float m, const Divisor& delta) {
    const float q = delta.divide(c - m);
    const float i = floorf(q);
    const float mid = (i + 0.5F) * delta.d + m;
    return {q, i, (c - mid) * delta.inverse};
  }
  QTRAIN_HOST_DEVICE float level() const { return (u > 0 ? 1.0F : 0.0F) + i; }
};

struct DsqForward {
  DsqSource source;
  float lower = 0, upper = 0, lift = 1, unlift = 1, m = 0, top = 0;
  Divisor delta;

  QTRAIN_HOST_DEVICE void prepare() {
    const DsqSetting s = source.read();
    lower = s.lower, upper = s.upper, lift = s.lift, unlift = s.unlift, m = s.m * s.lift, top = s.top;
    delta.set(s.delta);
  }
  QTRAIN_HOST_DEVICE float operator()(float x) const {
    const Place place = Place::of(clip(x, lower, upper) * lift, m, delta);
    const float y = (place.level() * delta.d + m) * unlift;
    return y > top ? top : y;
  }
};

// dL/dx but for the share of the extremes, and the terms of the totals.
struct DsqBackward {
  DsqSource source;
  float lower = 0, upper = 0, lift = 1, m = 0;
  float kappa = 0, slope = 1, alpha_by_e = 0, alpha_by_g = 0;
  Divisor delta;

  QTRAIN_HOST_DEVICE void prepare() {
    const DsqSetting s = source.read();
    lower = s.lower, upper = s.upper, lift = s.lift, m = s.m * s.lift;
    kappa = s.kappa, slope = s.slope, alpha_by_e = s.alpha_by_e, alpha_by_g = s.alpha_by_g;
    delta.set(s.delta);
  }
  // de/dg at c.
  QTRAIN_HOST_DEVICE float steepness(float tau) const { return slope * (1.0F - tau * tau); }
  QTRAIN_HOST_DEVICE float steepness_at(float end) const {
    return steepness(tanh_of(Place::of(end * lift, m, delta).u * kappa));
  }
  QTRAIN_HOST_DEVICE Mapped<totals> operator()(float x, float g) const {
    const Place place = Place::of(clip(x, lower, upper) * lift, m, delta);
    const float tau = tanh_of(place.u * kappa);
    const float e = g * steepness(tau);
    const float not_above = x > upper ? 0.0F : e;
    return {x < lower ? 0.0F : not_above,
            {g * place.level() - e * place.q, g - e, e * place.u * alpha_by_e + g * tau * alpha_by_g}};
  }
};

// The extremes of all elements, and of each block.
struct MeasuredExtremes {
  const float* range;   // from DsqSource
  const float* blocks;  // {-min x, max x} of each block
  QTRAIN_HOST_DEVICE float least() const { return -range[2]; }
  QTRAIN_HOST_DEVICE float most() const { return range[3]; }
  QTRAIN_HOST_DEVICE bool has_most(std::int64_t block) const { return blocks[2 * block + 1] == most(); }
  QTRAIN_HOST_DEVICE bool has_least(std::int64_t block) const { return -blocks[2 * block] == least(); }
};

struct HasExtreme {
  MeasuredExtremes of;
  QTRAIN_HOST_DEVICE bool operator()(std::int64_t b) const { return of.has_most(b) || of.has_least(b); }
};

struct CountTerms {
  MeasuredExtremes of;
  float least = 0, most = 0;
  QTRAIN_HOST_DEVICE void prepare() { least = of.least(), most = of.most(); }
  QTRAIN_HOST_DEVICE Terms<counts> operator()(float x) const {
    return {x == most ? 1.0F : 0.0F, x == least ? 1.0F : 0.0F};
  }
};

struct IsClipped {
  MeasuredExtremes of;
  QTRAIN_HOST_DEVICE bool operator()(std::int64_t block) const {
    return of.blocks[2 * block + 1] > of.range[1] || -of.blocks[2 * block] < of.range[0];
  }
};

struct BeyondTerms {
  const float* range;
  float lower = 0, upper = 0;
  QTRAIN_HOST_DEVICE void prepare() { lower = range[0], upper = range[1]; }
  QTRAIN_HOST_DEVICE Terms<bounds> operator()(float x, float g) const {
    return {x > upper ? g : 0.0F, x < lower ? g : 0.0F};
  }
};

// What the sums mean for the parameters and for each element at an extreme.
struct DsqTotals {
  DsqBackward math;
  const float* sums;
  const float* count;
  const float* beyond;
  float momentum;  // 0 in evaluation
  float* shares;   // of each element at {max, min}
  float* upper;
  float* lower;
  float* alpha;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t) const {
    DsqBackward prepared = math;
    prepared.prepare();
    const DsqSetting s = math.source.read();
    const float to_top = s.flat ? 0.0F : sums[to_most] / math.source.intervals;
    const float to_bottom = s.flat ? 0.0F : sums[to_least] - to_top;
    const bool clips_most = s.most > s.upper;
    const bool clips_least = s.least < s.lower;
    shares[0] = clips_most ? 0.0F : to_top / count[count_most];
    shares[1] = clips_least ? 0.0F : to_bottom / count[count_least];
    // All clipped elements stand at the bound, where de/dg is one number.
    const float above = clips_most ? to_top + beyond[beyond_upper] * prepared.steepness_at(s.upper) : 0.0F;
    const float below =
        clips_least ? to_bottom + beyond[beyond_lower] * prepared.steepness_at(s.lower) : 0.0F;
    *upper = momentum == 0 ? 0.0F : momentum * above;
    *lower = momentum == 0 ? 0.0F : momentum * below;
    const float a = *math.source.alpha;
    const float width = clip(s.delta * s.unlift, 0.0F, 1e30F);  // finite for the hugest tensors too
    *alpha = s.flat || !(a >= least_alpha && a <= most_alpha) ? 0.0F : sums[to_alpha] * width;
  }
};

// Blocks with an element at an extreme that has a share.
struct HasShare {
  MeasuredExtremes of;
  const float* shares;
  float at_most = 0, at_least = 0;
  QTRAIN_HOST_DEVICE void prepare() { at_most = shares[0], at_least = shares[1]; }
  QTRAIN_HOST_DEVICE bool operator()(std::int64_t block) const {
    return (at_most != 0 && of.has_most(block)) || (at_least != 0 && of.has_least(block));
  }
};

// Gives the elements at the extremes their shares.
struct ExtremeShares {
  MeasuredExtremes of;
  const float* shares;
  float least = 0, most = 0, at_most = 0, at_least = 0;
  QTRAIN_HOST_DEVICE void prepare() {
    least = of.least(), most = of.most();
    at_most = shares[0], at_least = shares[1];
  }
  QTRAIN_HOST_DEVICE void operator()(float& grad, float x) const {
    grad += (x == most ? at_most : 0.0F) + (x == least ? at_least : 0.0F);
  }
};

struct DsqNode final : Node {
  std::string_view op;
  float intervals = 1;
  float momentum = 0;
  SavedTensor x{"x"};
  SavedTensor alpha{"alpha"};
  SavedTensor range{"range"};
  SavedTensor block_extremes{"block extremes"};
  std::string_view name() const override { return op; }
  std::vector<SavedTensor*> saved() override { return {&x, &alpha, &range, &block_extremes}; }

  bool can_recompute() const override { return true; }
  Tensor recompute(std::size_t /*output*/) override { return run_forward(source(), x.get()); }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    const Tensor input = x.get();
    const Tensor extremes = block_extremes.get();
    const Stream stream = backend(g.device()).stream();
    const auto scalars = [&](std::int64_t count) { return Tensor::empty({count}, DType::f32, g.device()); };
    const DsqBackward math{source()};
    const MeasuredExtremes measured{math.source.range, extremes.data<float>()};
    const Tensor count = scalars(counts);
    reduce_where<counts, Sum>(stream, g.numel(), HasExtreme{measured}, CountTerms{measured},
                              count.data<float>(), input.data<float>());
    const Tensor beyond = scalars(bounds);
    reduce_where<bounds, Sum>(stream, g.numel(), IsClipped{measured}, BeyondTerms{math.source.range},
                              beyond.data<float>(), input.data<float>(), g.data<float>());
    // From here on, grad_x may have taken the place of g.
    const Tensor grad_x = reuse_or_allocate(g);
    const Tensor sums = scalars(totals);
    map_reduce<totals>(stream, g.numel(), math, sums.data<float>(), grad_x.data<float>(), input.data<float>(),
                       g.data<float>());
    const Tensor shares = scalars(2);
    std::vector<Tensor> grads = {grad_x, scalars(1), scalars(1), scalars(1)};
    for_each(stream, 1,
             DsqTotals{math, sums.data<float>(), count.data<float>(), beyond.data<float>(), momentum,
                       shares.data<float>(), grads[1].data<float>(), grads[2].data<float>(),
                       grads[3].data<float>()});
    update_where(stream, g.numel(), HasShare{measured, shares.data<float>()},
                 ExtremeShares{measured, shares.data<float>()}, grad_x.data<float>(),
                 static_cast<const float*>(input.data<float>()));
    return grads;
  }

  DsqSource source() const {
    return {.range = range.get().data<float>(), .alpha = alpha.get().data<float>(), .intervals = intervals};
  }
  static Tensor run_forward(const DsqSource& source, const Tensor& x) {
    Tensor y = Tensor::empty_like(x);
    map(backend(x.device()).stream(), x.numel(), DsqForward{source}, y.data<float>(), x.data<float>());
    return y;
  }
};

struct Extremes {
  QTRAIN_HOST_DEVICE Terms<2> operator()(float x) const { return {-x, x}; }
};

// A bound at a measured end of the data, sign * now, where that is finite.
struct BoundFromData {
  float sign;
  QTRAIN_HOST_DEVICE float operator()(float before, float now) const {
    return now - now == 0 ? sign * now : before;
  }
};

// A bound that clips, from the running and the learned one.
struct MixedBound {
  float share, keep;
  QTRAIN_HOST_DEVICE float operator()(float running, float learned) const {
    return share == 0 ? running : keep * running + share * learned;
  }
};

class Dsq final : public Quantizer {
 public:
  explicit Dsq(const QuantizerSpec& spec)
      : Quantizer(spec.bits),
        op_(spec.role == Role::weight ? "dsq weight"
                                      : (spec.role == Role::bias ? "dsq bias" : "dsq activation")),
        momentum_(spec.options.real("momentum")),
        stores_running_(spec.options.flag("store_running")),
        upper_(add_parameter("upper", parameter(spec, "upper"))),
        lower_(add_parameter("lower", parameter(spec, "lower"))),
        alpha_(add_parameter("alpha", parameter(spec, "alpha"))),
        running_upper_(add_buffer("running_upper", value(spec, "upper"))),
        running_lower_(add_buffer("running_lower", value(spec, "lower"))) {
    if (spec.options.choice("bounds") == "data") measured_ = &add_counter("measured");
    const double alpha = spec.options.real("alpha");
    const double gap = static_cast<double>(alpha_gap);
    check::value(alpha >= 0.001 && alpha <= 1.999 && (alpha <= 1 - gap || alpha >= 1 + gap), op_,
                 "option 'alpha'", std::to_string(alpha), "0.001..1.999 and not 1",
                 "1 is the straight line, with a division by 0; 0 a hard step, 2 and more no curve at all");
    check::value(momentum_ >= 0 && momentum_ <= 1, op_, "option 'momentum'", std::to_string(momentum_),
                 "0..1");
    check::value(
        spec.options.real("lower") < spec.options.real("upper"), op_, "options 'lower' and 'upper'",
        std::to_string(spec.options.real("lower")) + " and " + std::to_string(spec.options.real("upper")),
        "a lower bound below the upper one");
  }

  std::string kind() const override { return "Dsq"; }
  std::string describe() const override { return std::string(op_) + ", " + std::to_string(bits()) + " bits"; }

  Tensor forward(const Tensor& x) override {
    if (bits() >= float_bits) return x;
    check::tensor(op_, "x", x);
    check::sizes(x.numel() > 0, op_, "an empty tensor", x.str(), "at least one element");
    check::same_device(op_, {x, upper_});
    const Tensor range = Tensor::empty({4}, DType::f32, x.device());
    const Tensor extremes = Tensor::empty({2 * reduction_blocks(x.numel())}, DType::f32, x.device());
    measure(x, range, extremes);
    if (measured_ != nullptr && is_training() && *measured_->data<std::int64_t>() == 0) start_at(range);
    take_bounds(range);

    auto node = std::make_shared<DsqNode>();
    node->op = op_;
    node->intervals = static_cast<float>(std::ldexp(1.0, bits()) - 1.0);
    node->momentum = is_training() ? static_cast<float>(momentum_) : 0.0F;
    Tensor y = DsqNode::run_forward(
        {.range = range.data<float>(), .alpha = alpha_.data<float>(), .intervals = node->intervals}, x);
    const std::array<Tensor, 4> inputs = {x, upper_, lower_, alpha_};
    if (Tape::needs_recording(inputs)) {
      node->x.save(x);
      node->alpha.save(alpha_);
      node->range.save(range);
      node->block_extremes.save(extremes);
    }
    Tape::record(node, inputs, std::span<const Tensor>(&y, 1));
    return y;
  }

 private:
  static Tensor value(const QuantizerSpec& spec, std::string_view option) {
    return Tensor::full({1}, static_cast<float>(spec.options.real(option)));
  }
  static Tensor parameter(const QuantizerSpec& spec, std::string_view option) {
    Tensor learned = value(spec, option);
    learned.set_requires_grad(true);
    return learned;
  }

  // Clipping keeps the order, so the extremes of the clipped values are the clipped extremes.
  static void measure(const Tensor& x, const Tensor& range, const Tensor& extremes) {
    const Stream stream = backend(x.device()).stream();
    reduce_each_block<2, Maximum>(stream, x.numel(), Extremes{}, extremes.data<float>(), x.data<float>());
    reduce_groups<1, Maximum>(stream, extremes.numel(), Grouping{.outer = 1, .inner = 2, .run = 1}, Itself(),
                              range.data<float>() + 2, extremes.data<float>());
  }

  // bounds = data: the first training batch's extremes, where they are finite.
  void start_at(const Tensor& range) {
    const Stream stream = backend(range.device()).stream();
    const auto set = [&](const Tensor& bound, float sign, const float* measured) {
      map(stream, 1, BoundFromData{sign}, bound.data<float>(), bound.data<float>(), measured);
      bound.bump_version();
    };
    for (const Tensor& bound : {lower_, running_lower_}) set(bound, -1, range.data<float>() + 2);
    for (const Tensor& bound : {upper_, running_upper_}) set(bound, 1, range.data<float>() + 3);
    *measured_->data<std::int64_t>() = 1;
  }

  // L and U of this forward.
  void take_bounds(const Tensor& range) {
    const Stream stream = backend(range.device()).stream();
    const MixedBound mixed{.share = static_cast<float>(is_training() ? momentum_ : 0.0),
                           .keep = static_cast<float>(is_training() ? 1 - momentum_ : 1.0)};
    const auto take = [&](const Tensor& running, const Tensor& learned, float* bound) {
      map(stream, 1, mixed, bound, running.data<float>(), learned.data<float>());
      if (!stores_running_ || !is_training()) return;
      map(stream, 1, Copied(), running.data<float>(), bound);
      running.bump_version();
    };
    take(running_lower_, lower_, range.data<float>());
    take(running_upper_, upper_, range.data<float>() + 1);
  }

  std::string_view op_;
  double momentum_;
  bool stores_running_;
  const Tensor& upper_;
  const Tensor& lower_;
  const Tensor& alpha_;
  const Tensor& running_upper_;
  const Tensor& running_lower_;
  const Tensor* measured_ = nullptr;  // 1 once the bounds have been taken from the data
};

std::vector<OptionSpec> dsq_options() {
  return {{.name = "alpha",
           .type = OptionType::real,
           .default_value = "0.2",
           .help = "initial alpha: near 0 a hard step, near 1 a straight line; 0.001..1.999 and not 1",
           .choices = {}},
          {.name = "momentum",
           .type = OptionType::real,
           .default_value = "0.1",
           .help = "share of the learned bounds in those that clip",
           .choices = {}},
          {.name = "store_running",
           .type = OptionType::boolean,
           .default_value = "false",
           .help = "let the running bounds follow the learned ones; off: they stay at their start (the "
                   "reference)",
           .choices = {}},
          {.name = "bounds",
           .type = OptionType::choice,
           .default_value = "given",
           .help = "start of the bounds: `lower` and `upper`, or min and max of the first training batch",
           .choices = {"given", "data"}},
          {.name = "upper",
           .type = OptionType::real,
           .default_value = "2147483648",
           .help = "initial upper bound; the default, the reference's, clips nothing",
           .choices = {}},
          {.name = "lower",
           .type = OptionType::real,
           .default_value = "-4294967296",
           .help = "initial lower bound, likewise",
           .choices = {}}};
}

const Registration registration{{
    .name = "dsq",
    .summary = "differentiable soft quantization: levels between min and max, a gradient shaped by tanh",
    .source = "Gong et al. 2019, arXiv:1908.05033; github ricky40403/DSQ",
    .weight_options = dsq_options(),
    .activation_options = dsq_options(),
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<Dsq>(spec);
    },
    .roles = {Role::weight, Role::activation, Role::bias},
    .first_layer = {},
    .last_layer = {.quantize = false},
    .bias_options = dsq_options(),
}};

}  // namespace
}  // namespace qtrain::quant
