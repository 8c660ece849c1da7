#include "engine/backend/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <deque>

#include "engine/backend/cuda/backend_parts.h"
#include "engine/backend/cuda/device_info.h"
#include "engine/backend/cuda/graph.h"

namespace qtrain {
namespace {

// Blocks start where the widest accesses of any library want them, as those of cudaMalloc do.
constexpr std::size_t block_alignment = 256;

// Also while work is recorded: the recording is relaxed, and what it uses is never given back.
void* acquire_segment(std::size_t bytes) {
  void* segment = nullptr;
  const cudaError_t status = cudaMalloc(&segment, bytes);
  if (status == cudaSuccess) return segment;
  cudaGetLastError();
  if (status != cudaErrorMemoryAllocation) cuda::check(status, "cudaMalloc", fmt::format("{} bytes", bytes));
  return nullptr;
}

void free_segment(void* segment, std::size_t /*bytes*/) {
  cudaFree(segment);
}

}  // namespace

CudaBackend::Parts::Parts(int device)
    : index(device),
      allocator(SegmentSource{acquire_segment, free_segment}, block_alignment),
      arrivals(static_cast<std::uint32_t*>(allocator.allocate(sizeof(std::uint32_t)))) {
  cuda::check(cudaMemsetAsync(arrivals, 0, sizeof(std::uint32_t), compute.get()), "cudaMemsetAsync");
}

cuda::ConvolutionChoices& CudaBackend::Parts::convolutions() {
  std::call_once(convolutions_once_,
                 [&] { convolutions_.emplace(compute.get(), cuda::device_info(index).memory_bytes); });
  return *convolutions_;
}

cuda::MatrixProducts& CudaBackend::Parts::products() {
  std::call_once(products_once_, [&] { products_.emplace(); });
  return *products_;
}

CudaBackend::CudaBackend(int index) : index_(index), parts_(std::make_unique<Parts>(index)) {}

CudaBackend::~CudaBackend() = default;

Allocator& CudaBackend::allocator() {
  return parts_->allocator;
}

Stream CudaBackend::stream() {
  return {device(), parts_->compute.get(), parts_->arrivals};
}

void CudaBackend::copy(const Stream& stream, void* to, const void* from, std::size_t bytes, CopyKind kind) {
  switch (kind) {
    case CopyKind::host_to_device:
      return parts_->transfers.to_device(stream, to, from, bytes);
    case CopyKind::device_to_host:
      return parts_->transfers.to_host(stream, to, from, bytes);
    case CopyKind::device_to_device:
      return cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda::native(stream)),
                         "cudaMemcpyAsync");
  }
}

void CudaBackend::fill_zero(const Stream& stream, void* to, std::size_t bytes) {
  cuda::check(cudaMemsetAsync(to, 0, bytes, cuda::native(stream)), "cudaMemsetAsync");
}

void CudaBackend::synchronize(const Stream& stream) {
  cuda::wait_for(cuda::native(stream));
}

void* CudaBackend::allocate_host(std::size_t bytes) {
  cuda::use_device(index_);  // a loader's thread may have no current device yet
  return parts_->host_memory.allocate(bytes);
}

void CudaBackend::release_host(void* memory) noexcept {
  parts_->host_memory.release(memory);
}

bool CudaBackend::is_host_idle(const void* memory) const {
  return parts_->host_memory.finished(memory);
}

void CudaBackend::configure(const DeviceSettings& settings) {
  math_ = settings.math;
  autotune_ = settings.autotune;
}

std::vector<std::string> CudaBackend::convolution_report() {
  return parts_->convolutions().report();
}

CudaBackend& cuda::backend(int index) {
  struct Lazy {
    std::once_flag once;
    std::unique_ptr<CudaBackend> made;
  };
  // Never destroyed: tensors held by other static objects must find it whenever they go, and at the end of a
  // process the driver may be gone before them.
  static auto& backends = *new std::deque<Lazy>(
      static_cast<std::size_t>(device_count()));  // NOLINT(cppcoreguidelines-owning-memory)
  use_device(index);
  Lazy& lazy = backends.at(static_cast<std::size_t>(index));
  std::call_once(lazy.once, [&] { lazy.made = std::make_unique<CudaBackend>(index); });
  return *lazy.made;
}

}  // namespace qtrain
