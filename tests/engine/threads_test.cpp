// The same bits for any number of threads, for every op forward and backward; with one exception: oneDNN
// splits the sums of a convolution's weight gradient by thread, so there the bits are the same only for the
// same number.
#include <cstring>
#include <functional>

#include "engine/autograd/tape.h"
#include "engine/kernels/parallel.h"
#include "engine/ops/activation.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/convolution.h"
#include "engine/ops/loss.h"
#include "engine/ops/matmul.h"
#include "engine/ops/pooling.h"
#include "engine/ops/rearrange.h"
#include "engine/ops/reduce.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

struct Case {
  std::string name;
  std::vector<Shape> inputs;
  std::function<Tensor(const std::vector<Tensor>&)> function;
  bool rounds_by_thread = false;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

class AnyThreads : public ::testing::TestWithParam<Case> {
 protected:
  ~AnyThreads() override { set_thread_count(before_); }

 private:
  int before_ = thread_count();
};

std::vector<std::vector<float>> run(const Case& c) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < c.inputs.size(); ++i)
    inputs.push_back(random_tensor(c.inputs[i], i).set_requires_grad(true));
  const Tensor y = c.function(inputs);
  Tape::backward(y, random_tensor(y.shape(), 99));
  std::vector<std::vector<float>> results{y.values()};
  for (const Tensor& t : inputs) results.push_back(t.grad().values());
  return results;
}

::testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  const bool same = a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  return same ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << "other bits";
}

TEST_P(AnyThreads, SameBits) {
  set_thread_count(1);
  const auto one = run(GetParam());
  for (const int threads : {2, 3}) {
    set_thread_count(threads);
    const auto several = run(GetParam());
    const auto again = run(GetParam());
    for (std::size_t i = 0; i < one.size(); ++i) {
      const std::string what = (i == 0 ? "output" : "gradient of input " + std::to_string(i - 1)) + " with " +
                               std::to_string(threads) + " threads";
      EXPECT_TRUE(same_bits(several[i], again[i])) << what << ", twice";
      const bool rounded = GetParam().rounds_by_thread && i >= 2;  // the gradients of weight and bias
      EXPECT_TRUE(rounded ? near(several[i], one[i], 1e-5) : same_bits(several[i], one[i])) << what;
    }
  }
}

using Tensors = std::vector<Tensor>;
const Shape images{8, 20, 17, 13};

Tensor classes_loss(const Tensors& in) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < in[0].dim(0); ++i) labels.push_back(i % in[0].dim(1));
  return softmax_cross_entropy(in[0], Tensor::from_values<std::int64_t>({in[0].dim(0)}, labels), 0.1F);
}

const Case cases[] = {
    {"Silu", {images}, [](const Tensors& in) { return silu(in[0]); }},
    {"Multiply", {images, {20, 1, 1}}, [](const Tensors& in) { return multiply(in[0], in[1]); }},
    {"MultiplyScalar", {images, {}}, [](const Tensors& in) { return multiply(in[0], in[1]); }},
    {"BatchNorm",
     {images, {20}, {20}, images},
     [](const Tensors& in) {
       return batch_norm_training(in[0], {in[1], in[2], {}, {}}, {.relu = true}, in[3]);
     }},
    {"BatchNormWide",
     {{64, 100}, {100}, {100}},
     [](const Tensors& in) {
       return batch_norm_training(in[0], {in[1], in[2], {}, {}});
     }},
    {"Convolution",
     {images, {24, 20, 3, 3}, {24}},
     [](const Tensors& in) {
       return conv2d(in[0], in[1], in[2], {.pad_begin = {1, 1}, .pad_end = {1, 1}});
     },
     true},
    {"ConvolutionOf32",
     {{8, 32, 16, 16}, {32, 32, 3, 3}},
     [](const Tensors& in) {
       return conv2d(in[0], in[1], {}, {.stride = {2, 2}, .pad_begin = {1, 1}, .pad_end = {1, 1}});
     },
     true},
    {"ConvolutionFewPixels",
     {{8, 128, 2, 2}, {128, 128, 3, 3}},
     [](const Tensors& in) {
       return conv2d(in[0], in[1], {}, {.pad_begin = {1, 1}, .pad_end = {1, 1}});
     },
     true},
    {"Depthwise",
     {{8, 32, 16, 16}, {32, 1, 3, 3}},
     [](const Tensors& in) { return conv2d(in[0], in[1], {}, {.groups = 32}); },
     true},
    {"Linear", {{64, 300}, {100, 300}, {100}}, [](const Tensors& in) { return linear(in[0], in[1], in[2]); }},
    {"MaxPool",
     {images},
     [](const Tensors& in) {
       return max_pool2d(in[0], {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}});
     }},
    {"AveragePool",
     {images},
     [](const Tensors& in) {
       return average_pool2d(in[0], {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}});
     }},
    {"CrossEntropy", {{300, 40}}, classes_loss},
    {"Flatten", {images}, [](const Tensors& in) { return flatten(in[0]); }},
    {"Concat", {images, {8, 3, 17, 13}}, [](const Tensors& in) { return concat(in, 1); }},
    {"Mean", {images}, [](const Tensors& in) { return mean(in[0]); }},
    {"SumOverImages",
     {images},
     [](const Tensors& in) {
       return sum(in[0], std::vector<std::size_t>{0, 2, 3});
     }},
};

INSTANTIATE_TEST_SUITE_P(Ops, AnyThreads, ::testing::ValuesIn(cases),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace qtrain
