#include "zoo/resnet.h"

#include <array>

#include "engine/ops/rearrange.h"
#include "layers/linear.h"
#include "layers/pooling.h"
#include "zoo/residual.h"

namespace qtrain::zoo {
namespace {

// conv 7x7 stride 2, bn, relu, max pool 3x3 stride 2, four stages of blocks, global average pool, fc.
template <class Block>
class ResNet final : public Module {
 public:
  ResNet(std::array<int, 4> blocks, const ModelOptions& options)
      : relu_(options.relu),
        conv1_(add("conv1", convolution(options.in_channels, 64, 7, 2))),
        bn1_(add<Normalization>("bn1", std::make_shared<BatchNorm2d>(64))),
        maxpool_(add("maxpool", std::make_shared<MaxPool2d>(
                                    PoolGeometry{.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}))) {
    std::int64_t channels = 64;
    for (std::size_t i = 0; i < blocks.size(); ++i)
      stages_[i] =
          add("layer" + std::to_string(i + 1),
              residual_stage<Block>(channels, std::int64_t{64} << i, blocks[i], i == 0 ? 1 : 2, relu_));
    avgpool_ = add("avgpool", std::make_shared<GlobalAvgPool2d>());
    fc_ = add("fc", std::make_shared<Linear>(channels, options.num_classes));
    initialize(*this, options);
  }

  Tensor forward(const Tensor& x) override {
    Tensor y = maxpool_(bn1_(conv1_(x), relu_));
    for (const Slot<Module>& stage : stages_) y = stage(y);
    return fc_(flatten(avgpool_(y)));
  }
  std::string kind() const override { return "ResNet"; }

 private:
  bool relu_;
  Slot<Module> conv1_;
  Slot<Normalization> bn1_;
  Slot<Module> maxpool_;
  std::array<Slot<Module>, 4> stages_;
  Slot<Module> avgpool_;
  Slot<Module> fc_;
};

template <class Block>
ModelInfo resnet(int depth, std::array<int, 4> blocks, const std::string& block_name) {
  return {.name = "resnet" + std::to_string(depth),
          .description = "ResNet-" + std::to_string(depth) + ", " + block_name + " blocks (torchvision's)",
          .image_size = 224,
          .num_classes = 1000,
          .make = [blocks](const ModelOptions& o) { return std::make_shared<ResNet<Block>>(blocks, o); }};
}

}  // namespace

std::vector<ModelInfo> resnet_models() {
  return {resnet<BasicBlock>(18, {2, 2, 2, 2}, "basic"), resnet<BasicBlock>(34, {3, 4, 6, 3}, "basic"),
          resnet<Bottleneck>(50, {3, 4, 6, 3}, "bottleneck"),
          resnet<Bottleneck>(101, {3, 4, 23, 3}, "bottleneck")};
}

}  // namespace qtrain::zoo
