// The part of CUDA's driver API (cuda.h) and of NVRTC (nvrtc.h) that the CUDA backend and the fake driver use. Names of
// symbols carry the suffixes that libcuda.so.1 exports, since the header's plain names are macros for them.
#pragma once

#include <cstddef>

namespace cuda {

enum Attribute : int {
    kMaxThreadsPerBlock = 1, kMaxSharedMemoryPerBlock = 8, kWarpSize = 10, kClockRate = 13, kMultiprocessorCount = 16,
    kPciBusId = 33, kPciDeviceId = 34, kMemoryClockRate = 36, kGlobalMemoryBusWidth = 37, kL2CacheSize = 38,
    kPciDomainId = 50, kCapabilityMajor = 75, kCapabilityMinor = 76, kStreamPrioritiesSupported = 78,
    kManagedMemory = 83, kPageableMemoryAccess = 88, kConcurrentManagedAccess = 89, kMaxSharedMemoryPerBlockOptin = 97,
};

enum JitOption : int { kJitErrorLog = 5, kJitErrorLogBytes = 6 };
constexpr int kFunctionMaxDynamicShared = 8;
constexpr int kLimitPrintfBytes = 1;  // CU_LIMIT_PRINTF_FIFO_SIZE
constexpr int kNoDevice = 100, kStubLibrary = 34;
constexpr int kPeerAccessAlreadyEnabled = 704;
constexpr int kDeviceCpu = -1;  // CU_DEVICE_CPU
constexpr int kLocationDevice = 1, kLocationHost = 2;

struct Uuid {
    unsigned char bytes[16];
};

/// CUmemLocation: passed by value to cuMemPrefetchAsync_v2.
struct Location {
    int type, id;
};

/// (symbol, parameters); all return CUresult.
#define GT_CUDA_FUNCTIONS(X)                                                        \
    X(cuInit, (unsigned flags))                                                     \
    X(cuDriverGetVersion, (int *version))                                           \
    X(cuDeviceGetCount, (int *count))                                               \
    X(cuDeviceGet, (int *device, int ordinal))                                      \
    X(cuDeviceGetName, (char *name, int length, int device))                        \
    X(cuDeviceTotalMem_v2, (std::size_t * bytes, int device))                       \
    X(cuDeviceGetAttribute, (int *value, int attribute, int device))                \
    X(cuDeviceGetPCIBusId, (char *bdf, int length, int device))                     \
    X(cuCtxCreate_v2, (void **context, unsigned flags, int device))                 \
    X(cuCtxDestroy_v2, (void *context))                                             \
    X(cuCtxSetCurrent, (void *context))                                             \
    X(cuCtxEnablePeerAccess, (void *context, unsigned flags))                       \
    X(cuCtxGetLimit, (std::size_t * value, int limit))                              \
    X(cuMemcpyAsync, (unsigned long long to, unsigned long long from, std::size_t bytes, void *stream)) \
    X(cuModuleLoadDataEx, (void **module, const void *image, unsigned count, int *options, void **values)) \
    X(cuFuncSetAttribute, (void *function, int attribute, int value))               \
    X(cuGetErrorName, (int status, const char **name))

#define GT_CUDA_NEWER_FUNCTIONS(X)                                                  \
    X(cuDeviceGetUuid_v2, (Uuid * uuid, int device))                                \
    X(cuDeviceGetUuid, (Uuid * uuid, int device))                                   \
    X(cuMemPrefetchAsync, (unsigned long long address, std::size_t bytes, int device, void *stream)) \
    X(cuMemPrefetchAsync_v2,                                                        \
      (unsigned long long address, std::size_t bytes, Location to, unsigned flags, void *stream))

/// All return nvrtcResult.
#define GT_NVRTC_FUNCTIONS(X)                                                       \
    X(nvrtcCreateProgram, (void **program, const char *source, const char *name, int headers, \
                           const char *const *texts, const char *const *names))     \
    X(nvrtcDestroyProgram, (void **program))                                        \
    X(nvrtcCompileProgram, (void *program, int count, const char *const *options))  \
    X(nvrtcGetPTXSize, (void *program, std::size_t *bytes))                         \
    X(nvrtcGetPTX, (void *program, char *ptx))                                      \
    X(nvrtcGetProgramLogSize, (void *program, std::size_t *bytes))                  \
    X(nvrtcGetProgramLog, (void *program, char *log))

}  // namespace cuda
