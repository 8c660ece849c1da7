// The blocks of residual networks (He et al. 2016), with torchvision's names. Batch norm, the shortcut's
// addition and ReLU are one pass over memory: bn(x, relu, residual). Without `relu` that part is left out.
#pragma once

#include "layers/normalization.h"
#include "zoo/registry.h"

namespace qtrain::zoo {

// A convolution without bias, padded so that stride 1 keeps the image's size.
std::shared_ptr<Module> convolution(std::int64_t in, std::int64_t out, std::int64_t kernel,
                                    std::int64_t stride = 1);

class ResidualBlock : public Module {
 public:
  // Makes the block start as its shortcut.
  virtual void zero_last_gain() = 0;
};

// conv 3x3, bn, relu, conv 3x3, bn, + shortcut, relu.
class BasicBlock final : public ResidualBlock {
 public:
  static constexpr std::int64_t expansion = 1;
  BasicBlock(std::int64_t in, std::int64_t width, std::int64_t stride, bool relu);
  Tensor forward(const Tensor& x) override;
  void zero_last_gain() override;
  std::string kind() const override { return "BasicBlock"; }

 private:
  bool relu_;
  Slot<Module> conv1_;
  Slot<Normalization> bn1_;
  Slot<Module> conv2_;
  Slot<Normalization> bn2_;
  Slot<Module> downsample_;  // empty where the shortcut is the identity
};

// conv 1x1, bn, relu, conv 3x3 (which carries the stride, as in torchvision), bn, relu, conv 1x1 to four
// times the width, bn, + shortcut, relu.
class Bottleneck final : public ResidualBlock {
 public:
  static constexpr std::int64_t expansion = 4;
  Bottleneck(std::int64_t in, std::int64_t width, std::int64_t stride, bool relu);
  Tensor forward(const Tensor& x) override;
  void zero_last_gain() override;
  std::string kind() const override { return "Bottleneck"; }

 private:
  bool relu_;
  Slot<Module> conv1_;
  Slot<Normalization> bn1_;
  Slot<Module> conv2_;
  Slot<Normalization> bn2_;
  Slot<Module> conv3_;
  Slot<Normalization> bn3_;
  Slot<Module> downsample_;
};

// `count` blocks in a row, the first of them with the stride. `channels` goes in and comes out.
template <class Block>
std::shared_ptr<Module> residual_stage(std::int64_t& channels, std::int64_t width, int count,
                                       std::int64_t stride, bool relu);

// Fresh weights for a network of these blocks: torchvision's rules.
void initialize(Module& network, const ModelOptions& options);

}  // namespace qtrain::zoo
