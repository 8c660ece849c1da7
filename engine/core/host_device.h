// Marks scalar functions that compile for the host and, under nvcc, for the device as well.
#pragma once

#if defined(__CUDACC__)
#define QTRAIN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define QTRAIN_HOST_DEVICE inline __attribute__((always_inline))
#endif
