// Trains a 4-bit network of your own with the installed library:
//   g++ train_demo.cpp $(pkg-config --cflags --libs qtrain) -o train_demo && ./train_demo [DATA] [EPOCHS]
// DATA as for `qtrain --data`; without it a small set of images is made on the spot.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "data/loader/loader.h"
#include "data/sets/open.h"
#include "engine/ops/loss.h"
#include "engine/ops/rearrange.h"
#include "engine/optim/sgd.h"
#include "layers/activation.h"
#include "layers/conv2d.h"
#include "layers/init.h"
#include "layers/linear.h"
#include "layers/normalization.h"
#include "layers/pooling.h"
#include "layers/sequential.h"
#include "quant/wrap.h"

using namespace qtrain;

Sequential& add_block(Sequential& net, std::int64_t in, std::int64_t out) {
  net.append(std::make_shared<Conv2d>(Conv2dOptions{in, out, {3, 3}, {2, 2}, {1, 1}}));
  return net.append(std::make_shared<BatchNorm2d>(out)).append(std::make_shared<ReLU>());
}

int main(int argc, char** argv) {
  const auto images = data::open_dataset(argc > 1 ? argv[1] : "demo", data::Split::train);
  data::Loader loader(images,
                      {.batch_size = 32, .pipeline = {.image_size = 32, .augment = data::Augment::resize}});

  Sequential net;
  add_block(add_block(add_block(net, 3, 16), 16, 32), 32, 64);
  net.append(std::make_shared<GlobalAvgPool2d>()).append(std::make_shared<Flatten>());
  net.append(std::make_shared<Linear>(64, images->classes()));
  reset_parameters(net, /*seed=*/1);
  quant::quantize_network(net, {.weight_quantizer = "sat", .weight_bits = 4, .activation_bits = 4});
  SGD optimizer({{.parameters = net.named_parameters()}}, {.learning_rate = 0.05, .momentum = 0.9});

  for (int epoch = 1; epoch <= (argc > 2 ? std::atoi(argv[2]) : 10); ++epoch) {
    loader.start_epoch(static_cast<std::uint64_t>(epoch));
    float loss_sum = 0, correct = 0, seen = 0;
    for (data::Batch batch; loader.next(batch); seen += static_cast<float>(batch.count)) {
      const Tensor pixels = Tensor::empty({batch.count, 3, batch.height, batch.width}, DType::u8);
      std::memcpy(pixels.raw(), batch.bytes.data(), batch.bytes.size());
      const Tensor x = normalize_images(pixels, {0.5F, 0.5F, 0.5F}, {0.25F, 0.25F, 0.25F});
      const Tensor labels = Tensor::from_values<std::int64_t>({batch.count}, batch.labels);
      const Tensor logits = net(x), loss = softmax_cross_entropy(logits, labels);
      optimizer.zero_grad();
      Tape::backward(loss);
      quant::before_update(net);
      optimizer.step();
      quant::after_update(net);  // learned ranges stay within their bounds
      loss_sum += loss.item() * static_cast<float>(batch.count);
      correct += count_top_k(logits, labels, 1).item();
    }
    std::printf("epoch %d  loss %.4f  top-1 %.1f%%\n", epoch, loss_sum / seen, 100 * correct / seen);
  }
}
