#include "engine/backend/cuda/runtime.h"

#include <fmt/format.h>

#include "engine/backend/cuda/graph.h"
#include "engine/core/error.h"
#include "engine/core/host_read.h"

namespace qtrain::cuda {

void fail(std::string_view library, std::string_view call, std::string_view said, std::string_view subject) {
  throw DeviceError({.where = std::string(library),
                     .what = fmt::format("{} failed: {}", call, said),
                     .got = std::string(subject),
                     .expected = "",
                     .hint = ""});
}

void check(cudaError_t status, std::string_view call, std::string_view subject) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next call that asks for the last error would be blamed
  const std::string said = fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
  if (status == cudaErrorMemoryAllocation)
    throw IoError({.where = "memory",
                   .what = fmt::format("{} failed: {}", call, said),
                   .got = std::string(subject),
                   .expected = "",
                   .hint = "use a smaller --batch-size or image size"});
  fail("cuda", call, said, subject);
}

void use_device(int index) {
  thread_local int current = -1;
  if (current == index) return;
  check(cudaSetDevice(index), "cudaSetDevice", fmt::format("cuda:{}", index));
  current = index;
}

CudaStream::CudaStream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  stream_.reset(stream);
}

CudaEvent::CudaEvent(Kind kind) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, kind == Kind::timing ? cudaEventDefault : cudaEventDisableTiming),
        "cudaEventCreateWithFlags");
  event_.reset(event);
}

void CudaEvent::record(cudaStream_t stream) const {
  check(cudaEventRecord(event_.get(), stream), "cudaEventRecord");
}

void CudaEvent::hold_back(cudaStream_t stream) const {
  check(cudaStreamWaitEvent(stream, event_.get(), 0), "cudaStreamWaitEvent");
}

bool CudaEvent::reached() const {
  const cudaError_t status = cudaEventQuery(event_.get());
  if (status == cudaErrorNotReady) return false;
  check(status, "cudaEventQuery");
  return true;
}

float CudaEvent::milliseconds_since(const CudaEvent& earlier) const {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, earlier.get(), get()), "cudaEventElapsedTime");
  return milliseconds;
}

void wait_for(cudaStream_t stream) {
  refuse_while_recording("waiting for the device");
  count_device_synchronization();
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize", "work queued earlier");
}

void wait_for(const CudaEvent& event) {
  refuse_while_recording("waiting for the device");
  count_device_synchronization();
  check(cudaEventSynchronize(event.get()), "cudaEventSynchronize", "work queued earlier");
}

}  // namespace qtrain::cuda
