// The CUDA runtime with typed errors and owners for its handles.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/core/device.h"

namespace qtrain::cuda {

// Throws DeviceError: a library's call failed. `subject` is what was computed: an op and its operands.
[[noreturn]] void fail(std::string_view library, std::string_view call, std::string_view said,
                       std::string_view subject);

// Throws IoError when memory is exhausted and DeviceError for every other failure. A failure of work that was
// queued earlier may come out of any later call.
void check(cudaError_t status, std::string_view call, std::string_view subject = {});

inline cudaStream_t native(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native);
}

// Makes a device the current one of the calling thread.
void use_device(int index);

class CudaStream {
 public:
  CudaStream();  // doesn't wait for the default stream, which others may use
  cudaStream_t get() const { return stream_.get(); }

 private:
  struct Destroy {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  };
  std::unique_ptr<CUstream_st, Destroy> stream_;
};

class CudaEvent {
 public:
  enum class Kind { order, timing };
  explicit CudaEvent(Kind kind = Kind::order);

  void record(cudaStream_t stream) const;
  void hold_back(cudaStream_t stream) const;  // what is queued there from now on waits for the recorded work
  bool reached() const;                       // or never recorded; doesn't wait
  float milliseconds_since(const CudaEvent& earlier) const;  // both of kind timing, and waited for
  cudaEvent_t get() const { return event_.get(); }

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  std::unique_ptr<CUevent_st, Destroy> event_;
};

// The only two ways in which the host waits for a device; both are counted (see host_read.h).
void wait_for(cudaStream_t stream);
void wait_for(const CudaEvent& event);

}  // namespace qtrain::cuda
