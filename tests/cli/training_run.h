// A run of training steps as `qtrain train` makes them, on generated images and without files.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/optimizer_setup.h"
#include "cli/training_step.h"
#include "quant/quantizer.h"
#include "quant/switchable_batch_norm.h"

namespace qtrain::testing_support {

struct Images {
  int count = 0;  // of a batch
  int size = 0;   // height and width
  int classes = 0;
  bool mixed = false;  // each with another one of its batch, in another proportion in each batch
};

// Brighter the higher the class, so that there is something to learn. Another batch for each number.
inline data::Batch make_batch(const Images& images, std::int64_t number) {
  data::Batch batch;
  batch.count = images.count;
  batch.height = batch.width = images.size;
  RandomStream random(3, RandomPurpose::user, 0, static_cast<std::uint64_t>(number));
  for (int i = 0; i < images.count; ++i) {
    batch.labels.push_back(
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(images.classes))));
    for (int k = 0; k < 3 * images.size * images.size; ++k)
      batch.bytes.push_back(
          static_cast<std::uint8_t>(random.below(80) + 50U * static_cast<unsigned>(batch.labels.back())));
  }
  if (images.mixed) {
    batch.partner_labels.assign(batch.labels.rbegin(), batch.labels.rend());
    batch.lambda = 1 / (1 + static_cast<float>(number % 4));
  }
  return batch;
}

// A batch norm for each width in the place of every one of the network's.
inline void make_switchable(Module& network, const std::vector<int>& widths) {
  network.visit([&](const std::string& path, Module& module) {
    if (const auto* const norm = dynamic_cast<BatchNorm2d*>(&module))
      network.replace_child(
          path, std::make_shared<quant::SwitchableBatchNorm2d>(*norm, quant::BitsList("bits", widths)));
  });
}

// Of every quantizer and every switchable batch norm.
inline void set_bits(Module& network, int bits) {
  network.visit([&](const std::string&, Module& module) {
    if (auto* const quantizer = dynamic_cast<quant::Quantizer*>(&module)) quantizer->set_bits(bits);
    if (auto* const norm = dynamic_cast<quant::SwitchableBatchNorm2d*>(&module)) norm->set_bits(bits);
  });
}

struct TrainingRun {
  cli::Session session;
  cli::StepMeter meter;
  cli::RunState state;
  std::unique_ptr<cli::TrainingStep> step;
  std::int64_t steps = 0;

  // What `options` leaves open is set here. The backend outlives the run.
  TrainingRun(cli::TrainOptions options, std::shared_ptr<Module> network, Backend& backend,
              std::size_t patience, DType dtype = DType::f32)
      : meter(patience, backend.device()) {
    options.epochs = 10;
    session.options = std::move(options);
    session.device = backend.device();
    session.data.normalization = {
        .name = "own", .mean = {0.5F, 0.4F, 0.3F}, .deviation = {0.2F, 0.3F, 0.4F}, .dtype = dtype};
    session.network = std::move(network);
    session.network->to(session.device);
    session.optimizer = cli::make_optimizer(session.options, *session.network);
    session.schedule = cli::make_run_schedule(session.options, 10);
    step = std::make_unique<cli::TrainingStep>(session, meter, backend);
  }

  void train(const Images& images, const std::function<void()>& look) {
    step->run(make_batch(images, steps), steps, look);
    ++steps;
  }
};

}  // namespace qtrain::testing_support
