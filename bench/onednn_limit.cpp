// The speed that oneDNN's primitives allow: every primitive of a network's float32 training step, in order,
// on operands that are already in the layout the primitive asks for (activations channels-last), with nothing
// between them. Prints one JSON line:
//   onednn_limit MODEL IMAGE_SIZE BATCH [STEPS]       MODEL: resnet18 or resnet20
// A step is each convolution forward, by data and by filters, batch norm with fused ReLU, pooling, residual
// additions, the fully connected layer, and SGD with momentum and weight decay. The loss is left out (it
// costs nothing).
#include <omp.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <random>
#include <string>
#include <unordered_map>

#include "bench/measure.h"

namespace {

using dnnl::memory;
using qtrain::bench::seconds_of;
using Tag = memory::format_tag;
using Arguments = std::unordered_map<int, memory>;

enum Category : std::size_t { convolution, batch_norm, pooling, addition, linear, sgd, categories };
constexpr std::array<const char*, categories> category_names{"convolution", "batch_norm", "pooling",
                                                             "addition",    "linear",     "sgd"};

// An activation and its gradient.
struct Value {
  memory data;
  memory grad;
};

class TrainingStep {
 public:
  explicit TrainingStep(std::int64_t batch) : batch_(batch) {}

  Value images(std::int64_t channels, std::int64_t side) { return value({batch_, channels, side, side}); }

  // The first layer needs no gradient by data.
  Value conv(const Value& x, std::int64_t out, std::int64_t kernel, std::int64_t stride,
             bool by_data = true) {
    const auto in = x.data.get_desc().dims();
    const std::int64_t pad = (kernel - 1) / 2;
    const std::int64_t side = (in[2] + 2 * pad - kernel) / stride + 1;
    Value y = value({batch_, out, side, side});
    const memory::desc any({out, in[1], kernel, kernel}, memory::data_type::f32, Tag::any);
    const memory::dims strides{stride, stride};
    const memory::dims pads{pad, pad};
    const auto direct = dnnl::algorithm::convolution_direct;
    const auto& xd = x.data.get_desc();
    const auto& yd = y.data.get_desc();

    const dnnl::convolution_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, direct, xd, any, yd, strides, pads, pads}, attributes(), engine_);
    const memory filters = parameter(forward.weights_desc(), in[1] * kernel * kernel);
    add(forward_, convolution, dnnl::convolution_forward(forward), forward.scratchpad_desc(),
        {{DNNL_ARG_SRC, x.data}, {DNNL_ARG_WEIGHTS, filters}, {DNNL_ARG_DST, y.data}});

    // Listed in forward order: the backward list runs from its end.
    if (by_data) {
      const dnnl::convolution_backward_data::primitive_desc backward(
          {direct, xd, any, yd, strides, pads, pads}, attributes(), engine_, forward);
      const bool same = backward.weights_desc() == forward.weights_desc();
      const memory own = same ? filters : random(backward.weights_desc(), 0.05F);
      add(backward_, convolution, dnnl::convolution_backward_data(backward), backward.scratchpad_desc(),
          {{DNNL_ARG_DIFF_DST, y.grad}, {DNNL_ARG_WEIGHTS, own}, {DNNL_ARG_DIFF_SRC, x.grad}});
    }
    const dnnl::convolution_backward_weights::primitive_desc by_filters(
        {direct, xd, any, yd, strides, pads, pads}, attributes(), engine_, forward);
    add(backward_, convolution, dnnl::convolution_backward_weights(by_filters), by_filters.scratchpad_desc(),
        {{DNNL_ARG_SRC, x.data},
         {DNNL_ARG_DIFF_DST, y.grad},
         {DNNL_ARG_DIFF_WEIGHTS, gradient(by_filters.diff_weights_desc())}});
    return y;
  }

  Value bn(const Value& x, bool relu) {
    const auto& desc = x.data.get_desc();
    const std::int64_t channels = desc.dims()[1];
    Value y = value(desc.dims());
    using Flags = dnnl::normalization_flags;
    const Flags flags = relu ? Flags::use_scale | Flags::use_shift | Flags::fuse_norm_relu
                             : Flags::use_scale | Flags::use_shift;
    const dnnl::batch_normalization_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, desc, 1e-5F, flags}, attributes(), engine_);
    const memory::desc per_channel({channels}, memory::data_type::f32, Tag::a);
    const memory gamma = parameter(per_channel, 0);
    const memory beta = parameter(per_channel, 0);
    const memory mean(per_channel, engine_);
    const memory variance(per_channel, engine_);
    const memory workspace(forward.workspace_desc(), engine_);
    Arguments arguments{{DNNL_ARG_SRC, x.data}, {DNNL_ARG_DST, y.data}, {DNNL_ARG_SCALE, gamma},
                        {DNNL_ARG_SHIFT, beta}, {DNNL_ARG_MEAN, mean},  {DNNL_ARG_VARIANCE, variance}};
    if (relu) arguments.emplace(DNNL_ARG_WORKSPACE, workspace);
    add(forward_, batch_norm, dnnl::batch_normalization_forward(forward), forward.scratchpad_desc(),
        arguments);

    const dnnl::batch_normalization_backward::primitive_desc backward(
        {dnnl::prop_kind::backward, desc, desc, 1e-5F, flags}, attributes(), engine_, forward);
    arguments = {{DNNL_ARG_SRC, x.data},
                 {DNNL_ARG_MEAN, mean},
                 {DNNL_ARG_VARIANCE, variance},
                 {DNNL_ARG_DIFF_DST, y.grad},
                 {DNNL_ARG_SCALE, gamma},
                 {DNNL_ARG_SHIFT, beta},
                 {DNNL_ARG_DIFF_SRC, x.grad},
                 {DNNL_ARG_DIFF_SCALE, gradient(per_channel)},
                 {DNNL_ARG_DIFF_SHIFT, gradient(per_channel)}};
    if (relu) arguments.emplace(DNNL_ARG_WORKSPACE, workspace);
    add(backward_, batch_norm, dnnl::batch_normalization_backward(backward), backward.scratchpad_desc(),
        arguments);
    return y;
  }

  // relu(a + b), one pass forward; backward the ReLU's mask, which is the gradient of both.
  Value add_relu(Value a, Value b) {
    const auto& desc = a.data.get_desc();
    Value y = value(desc.dims());
    dnnl::primitive_attr attr = attributes();
    dnnl::post_ops post;
    post.append_eltwise(1.0F, dnnl::algorithm::eltwise_relu, 0, 0);
    attr.set_post_ops(post);
    const dnnl::binary::primitive_desc forward({dnnl::algorithm::binary_add, desc, desc, desc}, attr,
                                               engine_);
    add(forward_, addition, dnnl::binary(forward), forward.scratchpad_desc(),
        {{DNNL_ARG_SRC_0, a.data}, {DNNL_ARG_SRC_1, b.data}, {DNNL_ARG_DST, y.data}});
    const auto relu = dnnl::algorithm::eltwise_relu_use_dst_for_bwd;
    const dnnl::eltwise_forward::primitive_desc hint({dnnl::prop_kind::forward_training, relu, desc, 0, 0},
                                                     engine_);
    const dnnl::eltwise_backward::primitive_desc backward({relu, desc, desc, 0, 0}, attributes(), engine_,
                                                          hint);
    b.grad.set_data_handle(a.grad.get_data_handle());  // memories are handles: every copy of b.grad moves
    add(backward_, addition, dnnl::eltwise_backward(backward), backward.scratchpad_desc(),
        {{DNNL_ARG_DST, y.data}, {DNNL_ARG_DIFF_DST, y.grad}, {DNNL_ARG_DIFF_SRC, a.grad}});
    return y;
  }

  // Two readers of x: their gradients are added up.
  std::array<Value, 2> split(const Value& x) {
    const auto& desc = x.data.get_desc();
    const Value a{x.data, random(desc, 1e-3F)};
    const Value b{x.data, random(desc, 1e-3F)};
    const dnnl::binary::primitive_desc sum({dnnl::algorithm::binary_add, desc, desc, desc}, attributes(),
                                           engine_);
    add(backward_, addition, dnnl::binary(sum), sum.scratchpad_desc(),
        {{DNNL_ARG_SRC_0, a.grad}, {DNNL_ARG_SRC_1, b.grad}, {DNNL_ARG_DST, x.grad}});
    return {a, b};
  }

  Value max_pool(const Value& x) {
    const std::int64_t side = (x.data.get_desc().dims()[2] + 2 - 3) / 2 + 1;
    return pool(x, dnnl::algorithm::pooling_max, side, {2, 2}, {3, 3}, {1, 1});
  }
  Value global_average(const Value& x) {
    const std::int64_t side = x.data.get_desc().dims()[2];
    return pool(x, dnnl::algorithm::pooling_avg_exclude_padding, 1, {1, 1}, {side, side}, {0, 0});
  }

  // The last layer. Its output's gradient is random.
  void fully_connected(const Value& x, std::int64_t classes) {
    const std::int64_t features = x.data.get_desc().dims()[1];
    const memory::desc xd({batch_, features}, memory::data_type::f32, Tag::nc);
    const memory::desc yd({batch_, classes}, memory::data_type::f32, Tag::nc);
    const memory::desc bias_desc({classes}, memory::data_type::f32, Tag::a);
    const memory::desc any({classes, features}, memory::data_type::f32, Tag::any);
    const memory input(xd, engine_, x.data.get_data_handle());
    const memory input_grad(xd, engine_, x.grad.get_data_handle());
    const memory y(yd, engine_);
    const memory y_grad = random(yd, 1.0F / static_cast<float>(batch_ * 100));
    const dnnl::inner_product_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, xd, any, bias_desc, yd}, attributes(), engine_);
    const memory weights = parameter(forward.weights_desc(), features);
    add(forward_, linear, dnnl::inner_product_forward(forward), forward.scratchpad_desc(),
        {{DNNL_ARG_SRC, input},
         {DNNL_ARG_WEIGHTS, weights},
         {DNNL_ARG_BIAS, parameter(bias_desc, 0)},
         {DNNL_ARG_DST, y}});
    const dnnl::inner_product_backward_data::primitive_desc by_data({xd, any, yd}, attributes(), engine_,
                                                                    forward);
    const bool same = by_data.weights_desc() == forward.weights_desc();
    add(backward_, linear, dnnl::inner_product_backward_data(by_data), by_data.scratchpad_desc(),
        {{DNNL_ARG_DIFF_DST, y_grad},
         {DNNL_ARG_WEIGHTS, same ? weights : random(by_data.weights_desc(), 0.05F)},
         {DNNL_ARG_DIFF_SRC, input_grad}});
    const dnnl::inner_product_backward_weights::primitive_desc by_weights({xd, any, bias_desc, yd},
                                                                          attributes(), engine_, forward);
    add(backward_, linear, dnnl::inner_product_backward_weights(by_weights), by_weights.scratchpad_desc(),
        {{DNNL_ARG_SRC, input},
         {DNNL_ARG_DIFF_DST, y_grad},
         {DNNL_ARG_DIFF_WEIGHTS, gradient(by_weights.diff_weights_desc())},
         {DNNL_ARG_DIFF_BIAS, gradient(bias_desc)}});
  }

  // One step; adds each category's seconds.
  void run(std::array<double, categories>& seconds) {
    for (const Call& call : forward_) seconds[call.category] += seconds_of([&] { execute(call); });
    for (auto call = backward_.rbegin(); call != backward_.rend(); ++call)
      seconds[call->category] += seconds_of([&] { execute(*call); });
    seconds[sgd] += seconds_of([&] { update(); });
  }

  std::int64_t parameter_count() const {
    std::int64_t count = 0;
    for (const Parameter& p : parameters_) {
      std::int64_t elements = 1;
      for (const std::int64_t d : p.weights.get_desc().dims()) elements *= d;
      count += elements;
    }
    return count;
  }

 private:
  struct Call {
    Category category;
    dnnl::primitive primitive;
    Arguments arguments;
  };
  struct Parameter {
    memory weights;
    memory grad;
    std::vector<float> momentum;
  };

  static dnnl::primitive_attr attributes() {
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attr;
  }

  Value value(const memory::dims& dims) {
    const memory::desc desc(dims, memory::data_type::f32, Tag::nhwc);
    return {random(desc, 1.0F), random(desc, 1e-3F)};
  }

  memory random(const memory::desc& desc, float scale) {
    memory m(desc, engine_);
    auto* values = static_cast<float*>(m.get_data_handle());
    std::uniform_real_distribution<float> uniform(-scale, scale);
    for (std::size_t i = 0; i < desc.get_size() / sizeof(float); ++i) values[i] = uniform(generator_);
    return m;
  }

  // fan_in 0: a batch norm's gain or a bias.
  memory parameter(const memory::desc& desc, std::int64_t fan_in) {
    memory m = random(desc, fan_in == 0 ? 1.0F : 2.45F / std::sqrt(static_cast<float>(fan_in)));
    parameters_.push_back({m, random(desc, 1e-3F), std::vector<float>(desc.get_size() / sizeof(float))});
    return m;
  }
  // A gradient is written by its primitive in a layout of its own; SGD reads as many bytes elsewhere.
  memory gradient(const memory::desc& desc) { return random(desc, 1e-3F); }

  Value pool(const Value& x, dnnl::algorithm algorithm, std::int64_t side, const memory::dims& stride,
             const memory::dims& kernel, const memory::dims& pad) {
    const auto& xd = x.data.get_desc();
    Value y = value({batch_, xd.dims()[1], side, side});
    const auto& yd = y.data.get_desc();
    const dnnl::pooling_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, algorithm, xd, yd, stride, kernel, pad, pad}, attributes(),
        engine_);
    const dnnl::pooling_backward::primitive_desc backward({algorithm, xd, yd, stride, kernel, pad, pad},
                                                          attributes(), engine_, forward);
    Arguments forward_arguments{{DNNL_ARG_SRC, x.data}, {DNNL_ARG_DST, y.data}};
    Arguments backward_arguments{{DNNL_ARG_DIFF_DST, y.grad}, {DNNL_ARG_DIFF_SRC, x.grad}};
    if (algorithm == dnnl::algorithm::pooling_max) {
      const memory workspace(forward.workspace_desc(), engine_);
      forward_arguments.emplace(DNNL_ARG_WORKSPACE, workspace);
      backward_arguments.emplace(DNNL_ARG_WORKSPACE, workspace);
    }
    add(forward_, pooling, dnnl::pooling_forward(forward), forward.scratchpad_desc(), forward_arguments);
    add(backward_, pooling, dnnl::pooling_backward(backward), backward.scratchpad_desc(), backward_arguments);
    return y;
  }

  void add(std::vector<Call>& calls, Category category, const dnnl::primitive& primitive,
           const memory::desc& scratchpad, Arguments arguments) {
    if (scratchpad.get_size() > 0) arguments.emplace(DNNL_ARG_SCRATCHPAD, memory(scratchpad, engine_));
    calls.push_back({category, primitive, std::move(arguments)});
  }

  void execute(const Call& call) {
    call.primitive.execute(stream_, call.arguments);
    stream_.wait();
  }

  // The gradients of one step are tiny and the learning rate is 0, so that values stay as they are for any
  // number of steps.
  void update() {
    constexpr float momentum = 0.9F;
    constexpr float decay = 1e-4F;
    const float rate = learning_rate_;
    for (Parameter& p : parameters_) {
      const auto n = static_cast<std::int64_t>(p.momentum.size());
      auto* w = static_cast<float*>(p.weights.get_data_handle());
      const auto* g = static_cast<const float*>(p.grad.get_data_handle());
      float* m = p.momentum.data();
#pragma omp parallel for simd if (n > 16384)
      for (std::int64_t i = 0; i < n; ++i) {
        m[i] = momentum * m[i] + (g[i] + decay * w[i]);
        w[i] -= rate * m[i];
      }
    }
  }

  std::int64_t batch_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::minstd_rand generator_{1};
  std::vector<Call> forward_;
  std::vector<Call> backward_;
  std::vector<Parameter> parameters_;
  volatile float learning_rate_ = 0;  // volatile: the compiler must not drop the update
};

Value residual_block(TrainingStep& net, const Value& x, std::int64_t width, std::int64_t stride) {
  const auto [left, right] = net.split(x);
  const Value y = net.bn(net.conv(net.bn(net.conv(left, width, 3, stride), true), width, 3, 1), false);
  const bool same = stride == 1 && x.data.get_desc().dims()[1] == width;
  return net.add_relu(y, same ? right : net.bn(net.conv(right, width, 1, stride), false));
}

Value stages(TrainingStep& net, Value y, int count, int blocks, std::int64_t width) {
  for (int stage = 0; stage < count; ++stage)
    for (int block = 0; block < blocks; ++block)
      y = residual_block(net, y, width << stage, stage > 0 && block == 0 ? 2 : 1);
  return y;
}

bool build(TrainingStep& net, const std::string& model, std::int64_t side) {
  const Value x = net.images(3, side);
  if (model == "resnet18") {
    const Value stem = net.max_pool(net.bn(net.conv(x, 64, 7, 2, false), true));
    net.fully_connected(net.global_average(stages(net, stem, 4, 2, 64)), 1000);
  } else if (model == "resnet20") {
    const Value stem = net.bn(net.conv(x, 16, 3, 1, false), true);
    net.fully_connected(net.global_average(stages(net, stem, 3, 3, 16)), 10);
  } else {
    return false;
  }
  return true;
}

int run(int argc, char** argv) {
  constexpr int warm_up = 3;
  const std::string model = argv[1];
  const std::int64_t side = std::atoll(argv[2]);
  const std::int64_t batch = std::atoll(argv[3]);
  const int steps = argc > 4 ? std::atoi(argv[4]) : 20;
  qtrain::bench::flush_denormals();
  TrainingStep net(batch);
  if (!build(net, model, side)) {
    std::fprintf(stderr, "onednn_limit: unknown model %s\n", model.c_str());
    return 2;
  }
  std::vector<double> times;
  std::array<double, categories> seconds{};
  for (int step = 0; step < warm_up + steps; ++step) {
    if (step == warm_up) seconds.fill(0);
    const double t = seconds_of([&] { net.run(seconds); });
    if (step >= warm_up) times.push_back(t);
  }
  const auto t = qtrain::bench::spread_of(times);
  const dnnl_version_t* version = dnnl_version();
  std::printf(
      "{\"model\": \"%s\", \"size\": %lld, \"batch\": %lld, \"ms\": %.2f, \"ms_min\": %.2f, \"ms_max\": "
      "%.2f, "
      "\"images_per_second\": %.1f, \"parameters\": %lld, \"onednn\": \"%d.%d.%d\", \"threads\": %d",
      model.c_str(), static_cast<long long>(side), static_cast<long long>(batch), t.median * 1e3, t.min * 1e3,
      t.max * 1e3, static_cast<double>(batch) / t.median, static_cast<long long>(net.parameter_count()),
      version->major, version->minor, version->patch, omp_get_max_threads());
  for (std::size_t i = 0; i < categories; ++i)
    std::printf(", \"%s_ms\": %.2f", category_names[i], seconds[i] * 1e3 / steps);
  std::printf("}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) {
    std::fprintf(stderr, "usage: onednn_limit MODEL IMAGE_SIZE BATCH [STEPS]\n");
    return 2;
  }
  return run(argc, argv);
} catch (const std::exception& error) {
  std::fprintf(stderr, "onednn_limit: %s\n", error.what());
  return 1;
}
