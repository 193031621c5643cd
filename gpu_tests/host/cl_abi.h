// The part of the OpenCL binary interface that the runner uses, declared from the Khronos specification's tables.
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
constexpr Int kDeviceNotAvailable = -2;
constexpr Int kMemObjectAllocationFailure = -4;
constexpr Int kOutOfResources = -5;
constexpr Int kOutOfHostMemory = -6;
constexpr Int kBuildProgramFailure = -11;
constexpr Int kInvalidValue = -30;
constexpr Int kInvalidCommandQueue = -36;
constexpr Int kInvalidBinary = -42;
constexpr Int kInvalidProgramExecutable = -45;
constexpr Int kInvalidBufferSize = -61;
constexpr Int kPlatformNotFoundKhr = -1001;
constexpr Int kNvidiaIllegalAccess = -9999;  // not in the specification: NVIDIA's word for a kernel's bad access

constexpr Ulong kDeviceTypeGpu = 1u << 2;
constexpr Ulong kDeviceTypeAll = 0xFFFFFFFFu;
constexpr Uint kPlatformName = 0x0902;
constexpr Uint kDeviceType = 0x1000;
constexpr Uint kDeviceMaxComputeUnits = 0x1002;
constexpr Uint kDeviceMaxWorkGroupSize = 0x1004;
constexpr Uint kDeviceMaxClockFrequency = 0x100C;  // MHz
constexpr Uint kDeviceMaxMemAllocSize = 0x1010;
constexpr Uint kDeviceGlobalMemCacheSize = 0x101E;
constexpr Uint kDeviceGlobalMemSize = 0x101F;
constexpr Uint kDeviceLocalMemSize = 0x1023;
constexpr Uint kDeviceName = 0x102B;
constexpr Uint kDeviceVendor = 0x102C;
constexpr Uint kDriverVersion = 0x102D;
constexpr Uint kDeviceVersion = 0x102F;
constexpr Uint kDeviceExtensions = 0x1030;
constexpr Uint kDeviceDoubleFpConfig = 0x1032;
constexpr Uint kDevicePrintfBufferSize = 0x1049;
constexpr Uint kDeviceSvmCapabilities = 0x1053;
constexpr Uint kDeviceIlVersion = 0x105B;
constexpr Uint kDeviceUuidKhr = 0x106A;        // cl_khr_device_uuid
constexpr Uint kDeviceSubGroupSizesIntel = 0x4108;  // cl_intel_required_subgroup_size
constexpr Uint kDevicePciBusInfoKhr = 0x410F;  // cl_khr_pci_bus_info
constexpr Uint kDeviceIdIntel = 0x4251;        // cl_intel_device_attribute_query
constexpr Ulong kQueueProfiling = 1u << 1;
constexpr Ulong kMemReadWrite = 1u << 0;
constexpr Ulong kMemAllocHostPtr = 1u << 4;
constexpr Ulong kMemSvmFineGrainBuffer = 1u << 10;
constexpr Ulong kMapReadWrite = 3u;
constexpr Ulong kSvmFineGrainBuffer = 1u << 1;
constexpr Ulong kSvmFineGrainSystem = 1u << 2;
constexpr Ulong kSvmAtomics = 1u << 3;
constexpr Ulong kMigrateToHost = 1u << 0;
constexpr Uint kProgramBinarySizes = 0x1165;
constexpr Uint kProgramBinaries = 0x1166;
constexpr Uint kProgramBuildLog = 0x1183;
constexpr Uint kProfilingStart = 0x1282;
constexpr Uint kProfilingEnd = 0x1283;
constexpr Int kComplete = 0;

using EventCallback = void (*)(Object, Int, void *);

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
    X(clGetProgramInfo, Int, (Object, Uint, std::size_t, void *, std::size_t *))                                    \
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
    X(clReleaseEvent, Int, (Object))                                                                                \
    X(clReleaseContext, Int, (Object))                                                                              \
    X(clReleaseCommandQueue, Int, (Object))                                                                         \
    X(clReleaseProgram, Int, (Object))                                                                              \
    X(clReleaseKernel, Int, (Object))                                                                               \
    X(clFinish, Int, (Object))                                                                                      \
    X(clFlush, Int, (Object))                                                                                       \
    X(clCreateUserEvent, Object, (Object, Int *))                                                                   \
    X(clSetUserEventStatus, Int, (Object, Int))                                                                     \
    X(clSetEventCallback, Int, (Object, Int, EventCallback, void *))                                                \
    X(clEnqueueMarkerWithWaitList, Int, (Object, Uint, const Object *, Object *))                                   \
    X(clEnqueueBarrierWithWaitList, Int, (Object, Uint, const Object *, Object *))                                  \
    X(clEnqueueCopyBuffer, Int,                                                                                     \
      (Object, Object, Object, std::size_t, std::size_t, std::size_t, Uint, const Object *, Object *))              \
    X(clEnqueueMapBuffer, void *,                                                                                   \
      (Object, Object, Uint, Ulong, std::size_t, std::size_t, Uint, const Object *, Object *, Int *))               \
    X(clEnqueueUnmapMemObject, Int, (Object, Object, void *, Uint, const Object *, Object *))                       \
    X(clCreateProgramWithBinary, Object,                                                                            \
      (Object, Uint, const Object *, const std::size_t *, const unsigned char **, Int *, Int *))

// The same for what came after OpenCL 1.2: a loader or a driver may lack it.
#define GT_CL_NEWER_FUNCTIONS(X)                                                                                    \
    X(clSVMAlloc, void *, (Object, Ulong, std::size_t, Uint))                                                       \
    X(clSVMFree, void, (Object, void *))                                                                            \
    X(clEnqueueSVMMemcpy, Int, (Object, Uint, void *, const void *, std::size_t, Uint, const Object *, Object *))   \
    X(clEnqueueSVMMigrateMem, Int,                                                                                  \
      (Object, Uint, const void **, const std::size_t *, Ulong, Uint, const Object *, Object *))                    \
    X(clSetKernelArgSVMPointer, Int, (Object, Uint, const void *))                                                  \
    X(clCreateProgramWithIL, Object, (Object, const void *, std::size_t, Int *))

}  // namespace cl
