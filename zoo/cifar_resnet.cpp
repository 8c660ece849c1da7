#include "zoo/cifar_resnet.h"

#include <array>

#include "engine/ops/rearrange.h"
#include "layers/linear.h"
#include "layers/pooling.h"
#include "zoo/residual.h"

namespace qtrain::zoo {
namespace {

// conv 3x3, bn, relu, three stages of basic blocks with 16, 32 and 64 channels, global average pool, fc.
class CifarResNet final : public Module {
 public:
  CifarResNet(int blocks_per_stage, const ModelOptions& options)
      : relu_(options.relu),
        conv1_(add("conv1", convolution(options.in_channels, 16, 3))),
        bn1_(add<Normalization>("bn1", std::make_shared<BatchNorm2d>(16))) {
    std::int64_t channels = 16;
    for (std::size_t i = 0; i < stages_.size(); ++i)
      stages_[i] = add("layer" + std::to_string(i + 1),
                       residual_stage<BasicBlock>(channels, std::int64_t{16} << i, blocks_per_stage,
                                                  i == 0 ? 1 : 2, relu_));
    avgpool_ = add("avgpool", std::make_shared<GlobalAvgPool2d>());
    fc_ = add("fc", std::make_shared<Linear>(channels, options.num_classes));
    initialize(*this, options);
  }

  Tensor forward(const Tensor& x) override {
    Tensor y = bn1_(conv1_(x), relu_);
    for (const Slot<Module>& stage : stages_) y = stage(y);
    return fc_(flatten(avgpool_(y)));
  }
  std::string kind() const override { return "CifarResNet"; }

 private:
  bool relu_;
  Slot<Module> conv1_;
  Slot<Normalization> bn1_;
  std::array<Slot<Module>, 3> stages_;
  Slot<Module> avgpool_;
  Slot<Module> fc_;
};

}  // namespace

std::vector<ModelInfo> cifar_resnet_models() {
  std::vector<ModelInfo> result;
  for (const int depth : {20, 32, 44, 56, 110}) {
    const int blocks_per_stage = (depth - 2) / 6;
    result.push_back(
        {.name = "resnet" + std::to_string(depth),
         .description = "ResNet-" + std::to_string(depth) + " for CIFAR, basic blocks, 16 to 64 channels",
         .image_size = 32,
         .num_classes = 10,
         .make = [blocks_per_stage](const ModelOptions& o) {
           return std::make_shared<CifarResNet>(blocks_per_stage, o);
         }});
  }
  return result;
}

}  // namespace qtrain::zoo
