// The part of the OpenCL 1.2 binary interface that the runner uses, declared from the Khronos specification's tables.
//
// Both the backend and the fault-injecting library of the tests of the tests build on it; no vendor header is needed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cl {

using Int = std::int32_t;
using Uint = std::uint32_t;
using Ulong = std::uint64_t;
using Object = void *;  // every OpenCL object is an opaque pointer

constexpr Int kSuccess = 0;
constexpr Int kDeviceNotFound = -1;
constexpr Int kOutOfResources = -5;
constexpr Int kBuildProgramFailure = -11;
constexpr Int kPlatformNotFoundKhr = -1001;

constexpr Ulong kDeviceTypeGpu = 1u << 2;
constexpr Ulong kDeviceTypeAll = 0xFFFFFFFFu;
constexpr Uint kPlatformName = 0x0902;
constexpr Uint kDeviceType = 0x1000;
constexpr Uint kDeviceMaxComputeUnits = 0x1002;
constexpr Uint kDeviceGlobalMemSize = 0x101F;
constexpr Uint kDeviceName = 0x102B;
constexpr Uint kDeviceVendor = 0x102C;
constexpr Uint kDriverVersion = 0x102D;
constexpr Uint kDeviceVersion = 0x102F;
constexpr Uint kDeviceUuidKhr = 0x106A;     // cl_khr_device_uuid
constexpr Uint kDevicePciBusInfoKhr = 0x410F;  // cl_khr_pci_bus_info
constexpr Ulong kQueueProfiling = 1u << 1;
constexpr Ulong kMemReadWrite = 1u << 0;
constexpr Uint kProgramBuildLog = 0x1183;
constexpr Uint kProfilingStart = 0x1282;
constexpr Uint kProfilingEnd = 0x1283;

// name, return type, parameter list
#define GT_CL_FUNCTIONS(X)                                                                                          \
    X(clGetPlatformIDs, Int, (Uint, Object *, Uint *))                                                              \
    X(clGetPlatformInfo, Int, (Object, Uint, std::size_t, void *, std::size_t *))                                   \
    X(clGetDeviceIDs, Int, (Object, Ulong, Uint, Object *, Uint *))                                                 \
    X(clGetDeviceInfo, Int, (Object, Uint, std::size_t, void *, std::size_t *))                                     \
    X(clCreateContext, Object, (const std::intptr_t *, Uint, const Object *, void *, void *, Int *))                \
    X(clCreateCommandQueue, Object, (Object, Object, Ulong, Int *))                                                 \
    X(clCreateProgramWithSource, Object, (Object, Uint, const char **, const std::size_t *, Int *))                 \
    X(clBuildProgram, Int, (Object, Uint, const Object *, const char *, void *, void *))                            \
    X(clGetProgramBuildInfo, Int, (Object, Object, Uint, std::size_t, void *, std::size_t *))                       \
    X(clCreateKernel, Object, (Object, const char *, Int *))                                                        \
    X(clSetKernelArg, Int, (Object, Uint, std::size_t, const void *))                                               \
    X(clCreateBuffer, Object, (Object, Ulong, std::size_t, void *, Int *))                                          \
    X(clReleaseMemObject, Int, (Object))                                                                            \
    X(clEnqueueWriteBuffer, Int,                                                                                    \
      (Object, Object, Uint, std::size_t, std::size_t, const void *, Uint, const Object *, Object *))               \
    X(clEnqueueReadBuffer, Int,                                                                                     \
      (Object, Object, Uint, std::size_t, std::size_t, void *, Uint, const Object *, Object *))                     \
    X(clEnqueueNDRangeKernel, Int,                                                                                  \
      (Object, Object, Uint, const std::size_t *, const std::size_t *, const std::size_t *, Uint, const Object *,   \
       Object *))                                                                                                   \
    X(clWaitForEvents, Int, (Uint, const Object *))                                                                 \
    X(clGetEventProfilingInfo, Int, (Object, Uint, std::size_t, void *, std::size_t *))                             \
    X(clReleaseEvent, Int, (Object))

}  // namespace cl
