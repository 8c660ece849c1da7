// Every op refuses every wrong rank, size, element type and missing tensor with a typed error of one form:
// "[op] what; got X; expected Y".
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "engine/autograd/tape.h"
#include "engine/core/error.h"
#include "engine/ops/activation.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/convolution.h"
#include "engine/ops/loss.h"
#include "engine/ops/matmul.h"
#include "engine/ops/pooling.h"
#include "engine/ops/rearrange.h"
#include "engine/ops/reduce.h"

namespace qtrain {
namespace {

struct Case {
  std::string op;
  bool (*is_expected_type)(const Error&);
  std::function<void()> call;
  std::string must_contain = "";
};

template <class T>
bool type(const Error& error) {
  return dynamic_cast<const T*>(&error) != nullptr;
}
constexpr auto shape_error = type<ShapeError>;
constexpr auto dtype_error = type<DTypeError>;
constexpr auto value_error = type<ValueError>;

Tensor f32(const Shape& shape) {
  return Tensor::zeros(shape);
}
Tensor f64(const Shape& shape) {
  return Tensor::zeros(shape, DType::f64);
}
Tensor bf16(const Shape& shape) {
  return Tensor::zeros(shape, DType::bf16);
}
Tensor i32(const Shape& shape) {
  return Tensor::zeros(shape, DType::i32);
}
Tensor i64(const Shape& shape) {
  return Tensor::zeros(shape, DType::i64);
}
Tensor u8(const Shape& shape) {
  return Tensor::zeros(shape, DType::u8);
}
const Tensor none;

void check(const std::vector<Case>& cases) {
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    SCOPED_TRACE("case " + std::to_string(i) + " of " + c.op);
    try {
      c.call();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_TRUE(c.is_expected_type(error)) << "another type of error: " << text;
      EXPECT_EQ(text.rfind("[" + c.op + "] ", 0), 0U) << text;
      EXPECT_NE(text.find("; got "), std::string::npos) << text;
      EXPECT_NE(text.find("; expected "), std::string::npos) << text;
      EXPECT_NE(text.find(c.must_contain), std::string::npos) << text;
    } catch (const std::exception& error) {
      ADD_FAILURE() << "an untyped error: " << error.what();
    }
  }
}

TEST(OpErrors, OneTensor) {
  const std::pair<std::string, std::function<void(const Tensor&)>> ops[] = {
      {"relu", [](const Tensor& x) { relu(x); }},
      {"relu6", [](const Tensor& x) { relu6(x); }},
      {"leaky_relu", [](const Tensor& x) { leaky_relu(x); }},
      {"clamp", [](const Tensor& x) { clamp(x, 0, 1); }},
      {"sigmoid", [](const Tensor& x) { sigmoid(x); }},
      {"tanh", [](const Tensor& x) { tanh(x); }},
      {"silu", [](const Tensor& x) { silu(x); }},
      {"hard_sigmoid", [](const Tensor& x) { hard_sigmoid(x); }},
      {"hard_swish", [](const Tensor& x) { hard_swish(x); }},
      {"scale", [](const Tensor& x) { scale(x, 2); }},
      {"shift", [](const Tensor& x) { shift(x, 2); }},
      {"sum", [](const Tensor& x) { sum(x); }},
      {"mean", [](const Tensor& x) { mean(x); }},
      {"sum", [](const Tensor& x) { sum(x, std::vector<std::size_t>{0}); }},
      {"sum_to_shape", [](const Tensor& x) { sum_to_shape(x, {}); }},
      {"reshape", [](const Tensor& x) { reshape(x, {1}); }},
      {"flatten", [](const Tensor& x) { flatten(x); }},
      {"pad2d",
       [](const Tensor& x) {
         pad2d(x, {1, 1}, {1, 1});
       }},
      {"max_pool2d", [](const Tensor& x) { max_pool2d(x, {}); }},
      {"average_pool2d", [](const Tensor& x) { average_pool2d(x, {}); }},
      {"global_average_pool2d", [](const Tensor& x) { global_average_pool2d(x); }},
  };
  std::vector<Case> cases;
  for (const auto& [name, op] : ops) {
    cases.push_back({name, value_error, [call = op] { call(none); }, "no tensor"});
    for (const DType dtype : {DType::f64, DType::i32, DType::u8, DType::i64})
      cases.push_back({name, dtype_error,
                       [call = op, dtype] {
                         call(Tensor::zeros({2, 3, 4, 4}, dtype));
                       },
                       "f32"});
  }
  check(cases);
}

TEST(OpErrors, Arithmetic) {
  std::vector<Case> cases;
  const std::pair<std::string, Tensor (*)(const Tensor&, const Tensor&)> ops[] = {
      {"add", add}, {"subtract", subtract}, {"multiply", multiply}, {"divide", divide}};
  for (const auto& [name, op] : ops) {
    const auto run = [&, f = op, n = name](bool (*expected)(const Error&), const Tensor& a, const Tensor& b) {
      cases.push_back({n, expected, [f, a, b] { f(a, b); }});
    };
    run(value_error, none, f32({2}));
    run(value_error, f32({2}), none);
    run(dtype_error, f64({2}), f32({2}));
    run(dtype_error, f32({2}), i32({2}));
    run(dtype_error, f32({2}), bf16({2}));
    run(dtype_error, bf16({2}), f32({2}));
    run(shape_error, f32({2}), f32({3}));
    run(shape_error, f32({2, 3}), f32({2}));
    run(shape_error, f32({2, 3, 4, 4}), f32({2, 1, 1}));
    run(shape_error, f32({0}), f32({2}));
  }
  cases.push_back({"add_in_place", value_error, [] { add_in_place(none, f32({2})); }});
  cases.push_back({"add_in_place", value_error, [] { add_in_place(f32({2}), none); }});
  cases.push_back({"add_in_place", dtype_error, [] { add_in_place(f64({2}), f32({2})); }});
  cases.push_back({"add_in_place", dtype_error, [] { add_in_place(f32({2}), f64({2})); }});
  cases.push_back({"add_in_place", shape_error, [] { add_in_place(f32({2}), f32({1})); }});
  cases.push_back({"multiply_in_place", value_error, [] { multiply_in_place(none, f32({})); }});
  cases.push_back({"multiply_in_place", value_error, [] { multiply_in_place(f32({2}), none); }});
  cases.push_back({"multiply_in_place", dtype_error, [] { multiply_in_place(f64({2}), f32({})); }});
  cases.push_back({"multiply_in_place", shape_error, [] { multiply_in_place(f32({2}), f32({2})); }});
  cases.push_back({"sum_to_shape", shape_error, [] { sum_to_shape(f32({2, 3}), {5}); }});
  cases.push_back({"sum_to_shape", shape_error, [] { sum_to_shape(f32({3}), {2, 3}); }});
  check(cases);
}

TEST(OpErrors, Convolution) {
  std::vector<Case> cases;
  const auto run = [&](bool (*expected)(const Error&), const Tensor& x, const Tensor& w, const Tensor& b = {},
                       const ConvolutionGeometry& g = {}) {
    cases.push_back({"conv2d", expected, [=] { conv2d(x, w, b, g); }});
  };
  const Tensor x = f32({2, 4, 5, 5});
  const Tensor w = f32({6, 4, 3, 3});
  run(value_error, none, w);
  run(value_error, x, none);
  run(dtype_error, f64({2, 4, 5, 5}), w);
  run(dtype_error, x, i32({6, 4, 3, 3}));
  run(dtype_error, x, w, f64({6}));
  run(shape_error, f32({4, 5, 5}), w);
  run(shape_error, x, f32({6, 4, 3}));
  run(shape_error, x, f32({6, 3, 3, 3}));
  run(shape_error, x, w, f32({5}));
  run(shape_error, x, w, f32({6, 1}));
  run(shape_error, x, f32({6, 4, 6, 3}));
  run(shape_error, x, f32({6, 4, 0, 3}));
  run(shape_error, x, f32({0, 4, 3, 3}));
  run(shape_error, x, w, {}, {.dilation = {3, 3}});
  run(shape_error, x, f32({5, 2, 3, 3}), {}, {.groups = 2});
  run(shape_error, f32({0, 4, 5, 5}), w);
  run(shape_error, f32({2, 0, 5, 5}), f32({6, 0, 3, 3}));
  run(value_error, x, w, {}, {.stride = {0, 1}});
  run(value_error, x, w, {}, {.stride = {1, -1}});
  run(value_error, x, w, {}, {.dilation = {1, 0}});
  run(value_error, x, w, {}, {.groups = 0});
  run(value_error, x, w, {}, {.pad_begin = {-1, 0}});
  run(value_error, x, w, {}, {.pad_end = {0, std::int64_t{1} << 62}});
  cases.push_back({"conv2d", shape_error, [] { conv2d_shape({4, 5, 5}, {6, 4, 3, 3}, {}); }});
  cases.push_back({"conv2d", shape_error, [] { conv2d_shape({2, 4, 5, 5}, {6, 4}, {}); }});
  check(cases);
}

TEST(OpErrors, Matrices) {
  std::vector<Case> cases;
  const std::pair<std::string, std::function<void(const Tensor&, const Tensor&)>> ops[] = {
      {"matmul", [](const Tensor& a, const Tensor& b) { matmul(a, b); }},
      {"linear", [](const Tensor& a, const Tensor& b) { linear(a, b); }}};
  for (const auto& [name, op] : ops) {
    const auto run = [&, f = op, n = name](bool (*expected)(const Error&), const Tensor& a, const Tensor& b) {
      cases.push_back({n, expected, [f, a, b] { f(a, b); }});
    };
    run(value_error, none, f32({3, 3}));
    run(value_error, f32({3, 3}), none);
    run(dtype_error, f64({3, 3}), f32({3, 3}));
    run(dtype_error, f32({3, 3}), u8({3, 3}));
    run(shape_error, f32({3}), f32({3, 3}));
    run(shape_error, f32({3, 3}), f32({3}));
    run(shape_error, f32({3, 3, 1, 1}), f32({3, 3}));
    run(shape_error, f32({2, 3}), f32({4, 5}));
    run(shape_error, f32({0, 3}), f32({3, 3}));
    run(shape_error, f32({3, 0}), f32({0, 0}));
  }
  cases.push_back({"linear", shape_error, [] { linear(f32({2, 3}), f32({4, 3}), f32({3})); }, "[4]"});
  cases.push_back({"linear", dtype_error, [] { linear(f32({2, 3}), f32({4, 3}), f64({4})); }});
  check(cases);
}

TEST(OpErrors, BatchNorm) {
  std::vector<Case> cases;
  struct Arguments {
    Tensor x = f32({2, 3, 4, 4});
    BatchNormState state{f32({3}), f32({3}), f32({3}), f32({3})};
    Tensor residual = f32({2, 3, 4, 4});
  };
  const auto run = [&](bool (*expected)(const Error&), const std::function<void(Arguments&)>& spoil,
                       bool in_training = true) {
    Arguments a;
    spoil(a);
    if (in_training)
      cases.push_back({"batch_norm", expected, [a] { batch_norm_training(a.x, a.state, {}, a.residual); }});
    cases.push_back({"batch_norm", expected, [a] { batch_norm_evaluation(a.x, a.state, {}, a.residual); }});
  };
  run(value_error, [](Arguments& a) { a.x = none; });
  run(value_error, [](Arguments& a) { a.state.gamma = none; });
  run(value_error, [](Arguments& a) { a.state.beta = none; });
  run(
      value_error, [](Arguments& a) { a.state.running_mean = none; }, false);
  run(
      value_error, [](Arguments& a) { a.state.running_variance = none; }, false);
  run(dtype_error, [](Arguments& a) { a.x = f64({2, 3, 4, 4}); });
  run(dtype_error, [](Arguments& a) { a.state.gamma = f64({3}); });
  run(dtype_error, [](Arguments& a) { a.state.running_variance = f64({3}); });
  run(dtype_error, [](Arguments& a) { a.residual = i32({2, 3, 4, 4}); });
  run(shape_error, [](Arguments& a) { a.x = f32({2, 3, 4}); });
  run(shape_error, [](Arguments& a) { a.x = f32({2, 4, 4, 4}); });
  run(shape_error, [](Arguments& a) { a.state.beta = f32({3, 1}); });
  run(shape_error, [](Arguments& a) { a.state.running_mean = f32({1}); });
  run(shape_error, [](Arguments& a) { a.residual = f32({2, 3, 4, 5}); });
  run(shape_error, [](Arguments& a) { a = {f32({0, 3}), a.state, none}; });
  run(shape_error, [](Arguments& a) {
    a = {f32({2, 0, 4, 4}), {f32({0}), f32({0}), f32({0}), f32({0})}, none};
  });
  cases.push_back({"batch_norm", shape_error,
                   [] {
                     batch_norm_training(f32({1, 3, 1, 1}), Arguments{}.state);
                   },
                   "larger batch"});
  check(cases);
}

TEST(OpErrors, Pooling) {
  std::vector<Case> cases;
  const std::pair<std::string, Tensor (*)(const Tensor&, const PoolGeometry&)> ops[] = {
      {"max_pool2d", max_pool2d}, {"average_pool2d", average_pool2d}};
  for (const auto& [name, op] : ops) {
    const auto run = [&, f = op, n = name](bool (*expected)(const Error&), const Shape& x,
                                           const PoolGeometry& g) {
      cases.push_back({n, expected, [f, x, g] { f(f32(x), g); }});
    };
    run(shape_error, {3, 4, 4}, {});
    run(shape_error, {2, 3, 1, 4}, {});
    run(shape_error, {2, 3, 0, 4}, {.kernel = {2, 2}, .pad = {1, 1}});
    run(shape_error, {2, 3, 4, 4}, {.kernel = {5, 2}});
    run(value_error, {2, 3, 4, 4}, {.kernel = {0, 2}});
    run(value_error, {2, 3, 4, 4}, {.stride = {1, 0}});
    run(value_error, {2, 3, 4, 4}, {.pad = {2, 2}});
    run(value_error, {2, 3, 4, 4}, {.pad = {-1, 0}});
    run(value_error, {2, 3, 4, 4}, {.kernel = {INT64_MAX, INT64_MAX}, .pad = {INT64_MAX / 2, INT64_MAX / 2}});
  }
  cases.push_back({"global_average_pool2d", shape_error, [] { global_average_pool2d(f32({2, 3})); }});
  cases.push_back({"global_average_pool2d", shape_error, [] { global_average_pool2d(f32({2, 3, 0, 4})); }});
  check(cases);
}

TEST(OpErrors, Loss) {
  std::vector<Case> cases;
  const auto labels = [](std::int64_t value) {
    return Tensor::from_values<std::int64_t>({2}, std::vector<std::int64_t>{0, value});
  };
  const std::pair<std::string, std::function<void(const Tensor&, const Tensor&)>> ops[] = {
      {"softmax_cross_entropy", [](const Tensor& z, const Tensor& l) { softmax_cross_entropy(z, l); }},
      {"count_top_k", [](const Tensor& z, const Tensor& l) { count_top_k(z, l, 1); }}};
  for (const auto& [name, op] : ops) {
    const auto run = [&, f = op, n = name](bool (*expected)(const Error&), const Tensor& z, const Tensor& l,
                                           const std::string& text = "") {
      cases.push_back({n, expected, [f, z, l] { f(z, l); }, text});
    };
    run(value_error, none, i64({2}));
    run(value_error, f32({2, 3}), none);
    run(dtype_error, f64({2, 3}), i64({2}));
    run(dtype_error, f32({2, 3}), i32({2}));
    run(dtype_error, f32({2, 3}), f32({2}));
    run(shape_error, f32({6}), i64({2}));
    run(shape_error, f32({2, 3}), i64({3}));
    run(shape_error, f32({2, 3}), i64({2, 1}));
    run(shape_error, f32({0, 3}), i64({0}));
    run(value_error, f32({2, 3}), labels(3), "0..2");
    run(value_error, f32({2, 3}), labels(-1), "got -1");
    run(value_error, f32({2, 3}), labels(INT64_MAX));
  }
  cases.push_back({"softmax_cross_entropy", value_error, [] {
                     softmax_cross_entropy(f32({2, 3}), i64({2}), -0.1F);
                   }});
  cases.push_back({"softmax_cross_entropy", value_error, [] {
                     softmax_cross_entropy(f32({2, 3}), i64({2}), 1.1F);
                   }});
  cases.push_back({"softmax_cross_entropy", value_error, [] {
                     softmax_cross_entropy(f32({2, 3}), i64({2}), NAN);
                   }});
  const auto mixed = [&](bool (*expected)(const Error&), const Tensor& partner, const Tensor& lambda,
                         const std::string& text) {
    cases.push_back({"softmax_cross_entropy", expected,
                     [=] {
                       softmax_cross_entropy(f32({2, 3}), MixedLabels{i64({2}), partner, lambda});
                     },
                     text});
  };
  mixed(value_error, none, f32({1}), "partner labels");
  mixed(value_error, i64({2}), none, "lambda");
  mixed(dtype_error, i32({2}), f32({1}), "partner labels");
  mixed(dtype_error, i64({2}), f64({1}), "lambda");
  mixed(shape_error, i64({3}), f32({1}), "partner labels");
  mixed(shape_error, i64({2}), f32({2}), "lambda");
  mixed(value_error, labels(3), f32({1}), "label out of range");
  for (const float lambda : {-0.5F, 1.5F, NAN})
    mixed(value_error, i64({2}), Tensor::full({1}, lambda), "lambda");
  cases.push_back({"count_top_k", value_error, [] { count_top_k(f32({2, 3}), i64({2}), 0); }});
  check(cases);
}

TEST(OpErrors, RearrangeAndReduce) {
  constexpr std::int64_t huge = std::int64_t{1} << 62;
  const auto join = [](const std::vector<Tensor>& parts, std::size_t dim) {
    return [=] { concat(parts, dim); };
  };
  check({
      {"reshape", shape_error,
       [] {
         reshape(f32({2, 3}), {5});
       },
       "[2, 3]"},
      {"reshape", shape_error,
       [] {
         reshape(f32({2, 3}), {-1, 4});
       }},
      {"reshape", shape_error,
       [] {
         reshape(f32({2, 3}), {-1, -1});
       }},
      {"reshape", shape_error,
       [] {
         reshape(f32({2, 3}), {-2, -3});
       }},
      {"reshape", shape_error,
       [] {
         reshape(f32({2, 3}), {0, -1});
       }},
      {"reshape", shape_error,
       [=] {
         reshape(f32({2, 3}), {huge, huge});
       }},
      {"reshape", shape_error,
       [] {
         reshape(f32({1}), {1, 1, 1, 1, 1, 1, 1});
       }},
      {"flatten", shape_error, [] { flatten(f32({3})); }},
      {"concat", shape_error, join({}, 0)},
      {"concat", value_error, join({none}, 0)},
      {"concat", value_error, join({f32({2}), none}, 0)},
      {"concat", dtype_error, join({f32({2}), f64({2})}, 0)},
      {"concat", shape_error, join({f32({2})}, 1)},
      {"concat", shape_error, join({f32({2, 3}), f32({2, 4})}, 0)},
      {"concat", shape_error, join({f32({2, 3}), f32({2})}, 0)},
      {"pad2d", shape_error,
       [] {
         pad2d(f32({2, 3}), {}, {});
       }},
      {"pad2d", value_error,
       [] {
         pad2d(f32({1, 1, 2, 2}), {-1, 0}, {});
       }},
      {"pad2d", value_error,
       [] {
         pad2d(f32({1, 1, 2, 2}), {INT64_MAX, 0}, {1, 0});
       }},
      {"normalize_images", value_error, [] { normalize_images(none, {0}, {1}); }},
      {"normalize_images", dtype_error,
       [] {
         normalize_images(f32({1, 1, 2, 2}), {0}, {1});
       }},
      {"normalize_images", shape_error,
       [] {
         normalize_images(u8({1, 2, 2}), {0}, {1});
       }},
      {"normalize_images", shape_error,
       [] {
         normalize_images(u8({1, 3, 2, 2}), {0}, {1});
       }},
      {"normalize_images", shape_error,
       [] {
         normalize_images(u8({1, 0, 2, 2}), {}, {});
       }},
      {"normalize_images", shape_error,
       [] {
         normalize_images(u8({1, 5, 2, 2}), std::vector<float>(5), std::vector<float>(5));
       }},
      {"images_to_float", dtype_error,
       [] {
         images_to_float(f32({1, 1, 2, 2}));
       }},
      {"images_to_float", shape_error,
       [] {
         images_to_float(u8({2, 2}));
       }},
      {"sum", shape_error, [] { sum(f32({0})); }},
      {"mean", shape_error,
       [] {
         mean(f32({0, 3}));
       }},
      {"sum", shape_error,
       [] {
         sum(f32({2, 3}), std::vector<std::size_t>{2});
       }},
      {"clamp", value_error, [] { clamp(f32({1}), 1, 0); }},
      {"clamp", value_error, [] { clamp(f32({1}), NAN, 0); }},
  });
}

TEST(OpErrors, MissingDevice) {
  check({{"device", type<DeviceError>,
          [] {
            Tensor::zeros({1}, DType::f32, {DeviceType::cuda, 97});
          },
          "cuda:97"}});
}

}  // namespace
}  // namespace qtrain
