// The part of HIP's runtime API that the HIP backend and the fake driver use. Signatures and numbers are those of
// include/hip/hip_runtime_api.h and driver_types.h of github.com/ROCm/HIP at c5e11fcac (ROCm 6.3); the numbers of
// attributes have been the same since ROCm 5. hipDeviceProp_t differs between major versions, so only one word of it is
// looked for.
#pragma once

#include <cstddef>

namespace hip {

enum Attribute : int {
    kClockRate = 5, kConcurrentManagedAccess = 9, kL2CacheSize = 19, kManagedMemory = 24, kMaxThreadsPerBlock = 56,
    kMemoryBusWidth = 59, kMemoryClockRate = 60, kMultiprocessorCount = 63, kPageableMemoryAccess = 65,
    kMaxSharedMemoryPerBlock = 74, kStreamPrioritiesSupported = 78, kWarpSize = 87,
};

constexpr int kCopyByAddress = 4;  // hipMemcpyDefault
constexpr int kNoDevice = 100, kInvalidDevice = 101, kPeerAccessAlreadyEnabled = 704;
constexpr int kDeviceCpu = -1;     // hipCpuDeviceId
constexpr std::size_t kPropertiesMost = 8192;  // more than any version of hipDeviceProp_t

struct Uuid {
    unsigned char bytes[16];
};

/// (symbol, result, parameters); an int is a hipError_t.
#define GT_HIP_FUNCTIONS(X)                                                                      \
    X(hipInit, int, (unsigned flags))                                                            \
    X(hipGetDeviceCount, int, (int *count))                                                      \
    X(hipDriverGetVersion, int, (int *version))                                                  \
    X(hipSetDevice, int, (int device))                                                           \
    X(hipDeviceReset, int, ())                                                                   \
    X(hipDeviceGetName, int, (char *name, int length, int device))                               \
    X(hipDeviceTotalMem, int, (std::size_t * bytes, int device))                                 \
    X(hipDeviceGetAttribute, int, (int *value, int attribute, int device))                       \
    X(hipDeviceGetPCIBusId, int, (char *bdf, int length, int device))                            \
    X(hipDeviceEnablePeerAccess, int, (int peer, unsigned flags))                                \
    X(hipMemcpyAsync, int, (void *to, const void *from, std::size_t bytes, int kind, void *stream)) \
    X(hipModuleLoadData, int, (void **module, const void *image))                                \
    X(hipGetErrorName, const char *, (int status))

#define GT_HIP_NEWER_FUNCTIONS(X)                                                                \
    X(hipDeviceGetUuid, int, (Uuid * uuid, int device))                                          \
    X(hipMemPrefetchAsync, int, (const void *address, std::size_t bytes, int device, void *stream)) \
    X(hipGetDevicePropertiesR0600, int, (void *properties, int device))                          \
    X(hipGetDeviceProperties, int, (void *properties, int device))

}  // namespace hip
