#include "zoo/residual.h"

#include "layers/conv2d.h"
#include "layers/init.h"
#include "layers/sequential.h"

namespace qtrain::zoo {
namespace {

std::shared_ptr<BatchNorm2d> norm(std::int64_t channels) {
  return std::make_shared<BatchNorm2d>(channels);
}

// A 1x1 convolution and a batch norm where stride or width changes, else nothing.
std::shared_ptr<Module> projection(std::int64_t in, std::int64_t out, std::int64_t stride) {
  if (in == out && stride == 1) return nullptr;
  auto shortcut = std::make_shared<Sequential>();
  shortcut->append(convolution(in, out, 1, stride)).append(norm(out));
  return shortcut;
}

void zero_gain(const Slot<Normalization>& slot) {
  for (const NamedTensor& p : slot->named_parameters())
    if (p.name == "weight") init_constant(p.tensor, 0);
}

}  // namespace

std::shared_ptr<Module> convolution(std::int64_t in, std::int64_t out, std::int64_t kernel,
                                    std::int64_t stride) {
  return std::make_shared<Conv2d>(Conv2dOptions{.in_channels = in,
                                                .out_channels = out,
                                                .kernel = square(kernel),
                                                .stride = square(stride),
                                                .padding = square((kernel - 1) / 2),
                                                .bias = false});
}

BasicBlock::BasicBlock(std::int64_t in, std::int64_t width, std::int64_t stride, bool relu)
    : relu_(relu),
      conv1_(add("conv1", convolution(in, width, 3, stride))),
      bn1_(add<Normalization>("bn1", norm(width))),
      conv2_(add("conv2", convolution(width, width, 3))),
      bn2_(add<Normalization>("bn2", norm(width))) {
  if (auto shortcut = projection(in, width, stride)) downsample_ = add("downsample", std::move(shortcut));
}

Tensor BasicBlock::forward(const Tensor& x) {
  const Tensor y = conv2_(bn1_(conv1_(x), relu_));
  return bn2_(y, relu_, downsample_ ? downsample_(x) : x);
}

void BasicBlock::zero_last_gain() {
  zero_gain(bn2_);
}

Bottleneck::Bottleneck(std::int64_t in, std::int64_t width, std::int64_t stride, bool relu)
    : relu_(relu),
      conv1_(add("conv1", convolution(in, width, 1))),
      bn1_(add<Normalization>("bn1", norm(width))),
      conv2_(add("conv2", convolution(width, width, 3, stride))),
      bn2_(add<Normalization>("bn2", norm(width))),
      conv3_(add("conv3", convolution(width, width * expansion, 1))),
      bn3_(add<Normalization>("bn3", norm(width * expansion))) {
  if (auto shortcut = projection(in, width * expansion, stride))
    downsample_ = add("downsample", std::move(shortcut));
}

Tensor Bottleneck::forward(const Tensor& x) {
  const Tensor y = conv3_(bn2_(conv2_(bn1_(conv1_(x), relu_)), relu_));
  return bn3_(y, relu_, downsample_ ? downsample_(x) : x);
}

void Bottleneck::zero_last_gain() {
  zero_gain(bn3_);
}

template <class Block>
std::shared_ptr<Module> residual_stage(std::int64_t& channels, std::int64_t width, int count,
                                       std::int64_t stride, bool relu) {
  auto stage = std::make_shared<Sequential>();
  for (int i = 0; i < count; ++i) {
    stage->append(std::make_shared<Block>(channels, width, i == 0 ? stride : 1, relu));
    channels = width * Block::expansion;
  }
  return stage;
}

template std::shared_ptr<Module> residual_stage<BasicBlock>(std::int64_t&, std::int64_t, int, std::int64_t,
                                                            bool);
template std::shared_ptr<Module> residual_stage<Bottleneck>(std::int64_t&, std::int64_t, int, std::int64_t,
                                                            bool);

void initialize(Module& network, const ModelOptions& options) {
  if (!options.initialize) return;
  reset_parameters(network, options.seed);
  if (!options.zero_init_residual) return;
  network.visit([](const std::string&, Module& module) {
    if (auto* block = dynamic_cast<ResidualBlock*>(&module)) block->zero_last_gain();
  });
}

}  // namespace qtrain::zoo
