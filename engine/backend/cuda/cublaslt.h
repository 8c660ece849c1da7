// Matrix products of cuBLASLt: owners for its descriptors, and one choice of algorithm for each problem.
#pragma once

#include <cublasLt.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "engine/backend/cuda/matmul_problem.h"
#include "engine/core/device.h"

namespace qtrain::cuda {

// Throws DeviceError, or IoError when memory is exhausted.
void check(cublasStatus_t status, std::string_view call, const MatmulProblem* problem = nullptr);

struct MatmulPointers {
  const void* left = nullptr;
  const void* right = nullptr;
  void* result = nullptr;
  const void* bias = nullptr;
};

class MatrixProducts {
 public:
  MatrixProducts();

  // Queues the product; false where cuBLASLt has no algorithm for it: then nothing was queued.
  bool run(const Stream& stream, const MatmulProblem& problem, const MatmulPointers& pointers);

 private:
  struct Descriptors;
  struct Choice {
    cublasLtMatmulAlgo_t algorithm{};
    std::size_t workspace_bytes = 0;
  };
  std::optional<Choice> choose(const MatmulProblem& problem, const Descriptors& descriptors) const;

  struct DestroyHandle {
    void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
  };
  std::unique_ptr<cublasLtContext, DestroyHandle> handle_;
  std::mutex mutex_;
  std::map<std::vector<std::int64_t>, std::optional<Choice>> choices_;
};

}  // namespace qtrain::cuda
