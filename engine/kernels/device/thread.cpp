#include "engine/kernels/device/thread.h"

#include "engine/core/error.h"

namespace qtrain::device {

void refuse_host_code() {
  throw DeviceError({.where = "kernel",
                     .what = "this code was compiled for the CPU only",
                     .got = "a tensor on a GPU",
                     .expected = "",
                     .hint = "compile it with nvcc -x cu, or use --device cpu"});
}

}  // namespace qtrain::device
