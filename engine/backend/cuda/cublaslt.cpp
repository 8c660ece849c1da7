#include "engine/backend/cuda/cublaslt.h"

#include <fmt/format.h>

#include "engine/backend/cuda/runtime.h"
#include "engine/core/error.h"
#include "engine/kernels/parallel.h"

namespace qtrain::cuda {
namespace {

constexpr std::size_t most_workspace = std::size_t{32} << 20;
constexpr std::size_t most_kept = 2048;

cudaDataType_t data_type(DType dtype, const MatmulProblem& problem) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    default:
      throw DTypeError({.where = "matmul",
                        .what = "no matrix products of this element type on a GPU",
                        .got = problem.str(),
                        .expected = "f32 or bf16",
                        .hint = ""});
  }
}

}  // namespace

void check(cublasStatus_t status, std::string_view call, const MatmulProblem* problem) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const std::string subject = problem == nullptr ? std::string() : problem->str();
  if (status == CUBLAS_STATUS_ALLOC_FAILED) check(cudaErrorMemoryAllocation, call, subject);
  fail("cublaslt", call,
       fmt::format("{} ({})", cublasLtGetStatusString(status), cublasLtGetStatusName(status)), subject);
}

// The three matrices and the operation. Sums are float32; float32 operands are rounded to tf32 only where
// asked for.
struct MatrixProducts::Descriptors {
  struct DestroyLayout {
    void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
  };
  struct DestroyOperation {
    void operator()(cublasLtMatmulDesc_t made) const { cublasLtMatmulDescDestroy(made); }
  };
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, DestroyLayout>;

  Descriptors(const MatmulProblem& problem, const void* bias)
      : left(layout(problem.left, problem)),
        right(layout(problem.right, problem)),
        result(layout(problem.result, problem)) {
    cublasLtMatmulDesc_t created = nullptr;
    const bool tf32 = problem.math == MathMode::tf32 && problem.left.dtype == DType::f32;
    check(cublasLtMatmulDescCreate(&created, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                   CUDA_R_32F),
          "cublasLtMatmulDescCreate", &problem);
    operation.reset(created);
    set<std::int32_t>(CUBLASLT_MATMUL_DESC_TRANSA, problem.left.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set<std::int32_t>(CUBLASLT_MATMUL_DESC_TRANSB, problem.right.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (!problem.bias) return;
    set<std::uint32_t>(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set<std::int32_t>(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(*problem.bias, problem));
    set<const void*>(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }

  Layout left, right, result;
  std::unique_ptr<cublasLtMatmulDescOpaque_t, DestroyOperation> operation;

 private:
  static Layout layout(const ColumnMajor& m, const MatmulProblem& problem) {
    cublasLtMatrixLayout_t created = nullptr;
    check(
        cublasLtMatrixLayoutCreate(&created, data_type(m.dtype, problem), static_cast<std::uint64_t>(m.rows),
                                   static_cast<std::uint64_t>(m.columns), m.leading),
        "cublasLtMatrixLayoutCreate", &problem);
    return Layout(created);
  }
  template <class T>
  void set(cublasLtMatmulDescAttributes_t name, T value) {
    const cublasStatus_t status =
        cublasLtMatmulDescSetAttribute(operation.get(), name, &value, sizeof(value));
    if (status != CUBLAS_STATUS_SUCCESS)
      check(status, fmt::format("cublasLtMatmulDescSetAttribute({})", static_cast<int>(name)));
  }
};

MatrixProducts::MatrixProducts() {
  cublasLtHandle_t handle = nullptr;
  check(cublasLtCreate(&handle), "cublasLtCreate");
  handle_.reset(handle);
}

// The first algorithm of cuBLASLt's heuristics. Partial sums along the inner dimension stay float32 and are
// merged in a fixed order.
std::optional<MatrixProducts::Choice> MatrixProducts::choose(const MatmulProblem& problem,
                                                             const Descriptors& d) const {
  struct DestroyPreference {
    void operator()(cublasLtMatmulPreference_t preference) const {
      cublasLtMatmulPreferenceDestroy(preference);
    }
  };
  cublasLtMatmulPreference_t created = nullptr;
  check(cublasLtMatmulPreferenceCreate(&created), "cublasLtMatmulPreferenceCreate", &problem);
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, DestroyPreference> preference(created);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof(value)),
          fmt::format("cublasLtMatmulPreferenceSetAttribute({})", static_cast<int>(name)));
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{most_workspace});
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});

  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_.get(), d.operation.get(), d.left.get(), d.right.get(),
                                     d.result.get(), d.result.get(), preference.get(), 1, &found, &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return std::nullopt;
  check(status, "cublasLtMatmulAlgoGetHeuristic", &problem);
  if (count == 0 || found.state != CUBLAS_STATUS_SUCCESS) return std::nullopt;
  return Choice{found.algo, found.workspaceSize};
}

bool MatrixProducts::run(const Stream& stream, const MatmulProblem& problem, const MatmulPointers& pointers) {
  const Descriptors d(problem, pointers.bias);
  std::optional<Choice> choice;
  {
    const std::scoped_lock lock(mutex_);
    std::vector<std::int64_t> key = problem.key();
    auto found = choices_.find(key);
    if (found == choices_.end()) {
      if (choices_.size() >= most_kept) choices_.clear();
      found = choices_.emplace(std::move(key), choose(problem, d)).first;
    }
    choice = found->second;
  }
  if (!choice) return false;
  const float one = 1;
  const float zero = 0;
  const Scratch<std::byte> workspace(stream, static_cast<std::int64_t>(choice->workspace_bytes));
  check(cublasLtMatmul(handle_.get(), d.operation.get(), &one, pointers.left, d.left.get(), pointers.right,
                       d.right.get(), &zero, pointers.result, d.result.get(), pointers.result, d.result.get(),
                       &choice->algorithm, workspace.data(), choice->workspace_bytes, native(stream)),
        "cublasLtMatmul", &problem);
  return true;
}

}  // namespace qtrain::cuda
