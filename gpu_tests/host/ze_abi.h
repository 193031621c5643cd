// The part of Level Zero's binary interface that the runner uses, declared from the specification (version 1.0 and what
// the comments name). The backend and the fake driver of the tests of the tests build on it; no vendor header needed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ze {

using Result = std::uint32_t;
using Flags = std::uint32_t;
using Bool = std::uint8_t;
using Object = void *;  // every handle is an opaque pointer

constexpr Result kSuccess = 0;
constexpr Result kNotReady = 1;
constexpr Result kDeviceLost = 0x70000001;
constexpr Result kOutOfHostMemory = 0x70000002;
constexpr Result kOutOfDeviceMemory = 0x70000003;
constexpr Result kModuleBuildFailure = 0x70000004;
constexpr Result kModuleLinkFailure = 0x70000005;
constexpr Result kUninitialized = 0x78000001;
constexpr Result kUnsupportedFeature = 0x78000003;
constexpr Result kInvalidArgument = 0x78000004;
constexpr Result kInvalidNullHandle = 0x78000005;
constexpr Result kInvalidSize = 0x78000008;
constexpr Result kUnsupportedSize = 0x78000009;
constexpr Result kInvalidNativeBinary = 0x7800000f;
constexpr Result kInvalidKernelName = 0x78000011;
constexpr Result kInvalidGroupSize = 0x78000013;
constexpr Result kInvalidKernelArgumentIndex = 0x78000015;
constexpr Result kInvalidKernelArgumentSize = 0x78000016;
constexpr Result kUnknown = 0x7ffffffe;

/// What each structure says of itself in its first member.
enum Type : std::uint32_t {
    kDriverProperties = 0x1,
    kDeviceProperties = 0x3,
    kDeviceComputeProperties = 0x4,
    kDeviceModuleProperties = 0x5,
    kCommandQueueGroupProperties = 0x6,
    kDeviceMemoryProperties = 0x7,
    kDeviceMemoryAccessProperties = 0x8,
    kDeviceCacheProperties = 0x9,
    kContextDesc = 0xd,
    kCommandQueueDesc = 0xe,
    kCommandListDesc = 0xf,
    kEventPoolDesc = 0x10,
    kEventDesc = 0x11,
    kDeviceMemAllocDesc = 0x15,
    kHostMemAllocDesc = 0x16,
    kModuleDesc = 0x1b,
    kKernelDesc = 0x1d,
    kEuCountExt = 0x10005,               // ZE_extension_eu_count
    kPciExtProperties = 0x10008,         // ZE_extension_pci_properties
    kMemoryExtProperties = 0x1000e,      // ZE_extension_device_memory_properties
    kRelaxedAllocationLimits = 0x20001,  // ZE_experimental_relaxed_allocation_limits
    kDeviceProperties12 = 0x20006,       // the timer's resolution in cycles a second; since 1.2
};

constexpr std::uint32_t kDeviceTypeGpu = 1, kDeviceTypeCpu = 2;
constexpr Flags kQueueGroupCompute = 1u << 0;
constexpr std::uint32_t kQueueAsynchronous = 2, kPriorityNormal = 0, kPriorityHigh = 2;
constexpr Flags kPoolHostVisible = 1u << 0, kPoolKernelTimestamp = 1u << 2;
constexpr Flags kScopeDevice = 1u << 1, kScopeHost = 1u << 2;
constexpr std::uint32_t kFormatSpirv = 0, kFormatNative = 1;
constexpr Flags kDeviceIntegrated = 1u << 0;
constexpr Flags kAccessRw = 1u << 0, kAccessConcurrentAtomic = 1u << 3;
constexpr Flags kModuleFp16 = 1u << 0, kModuleFp64 = 1u << 1, kModuleInt64Atomics = 1u << 2;
constexpr Flags kRelaxedMaxSize = 1u << 0;
constexpr std::uint32_t kAdviseHere = 2, kAdviseHereNoMore = 3;  // of ze_memory_advice_t
constexpr std::uint32_t kBytesPerNanosecond = 1;
constexpr std::uint64_t kForever = UINT64_MAX;

struct DriverProperties {
    Type type = kDriverProperties;
    void *next = nullptr;
    std::uint8_t uuid[16];
    std::uint32_t version;
};
struct DeviceProperties {
    Type type = kDeviceProperties12;
    void *next = nullptr;
    std::uint32_t kind, vendor, device;
    Flags flags;
    std::uint32_t subdevice, core_clock;  // MHz
    std::uint64_t max_alloc;
    std::uint32_t hardware_contexts, queue_priority, threads_per_eu, simd, eus, subslices, slices;
    std::uint64_t timer;  // cycles a second
    std::uint32_t timestamp_bits, kernel_timestamp_bits;
    std::uint8_t uuid[16];
    char name[256];
};
struct EuCount {  // behind DeviceProperties
    Type type = kEuCountExt;
    void *next = nullptr;
    std::uint32_t total;
};
struct ComputeProperties {
    Type type = kDeviceComputeProperties;
    void *next = nullptr;
    std::uint32_t max_group, max_group_x, max_group_y, max_group_z, max_groups_x, max_groups_y, max_groups_z, shared;
    std::uint32_t subgroup_count, subgroups[8];
};
struct ModuleProperties {
    Type type = kDeviceModuleProperties;
    void *next = nullptr;
    std::uint32_t spirv;
    Flags flags, fp16, fp32, fp64;
    std::uint32_t max_arguments, printf_buffer;
    std::uint8_t native_kernel[16];
};
struct QueueGroupProperties {
    Type type = kCommandQueueGroupProperties;
    void *next = nullptr;
    Flags flags;
    std::size_t max_fill_pattern;
    std::uint32_t queues;
};
struct MemoryProperties {
    Type type = kDeviceMemoryProperties;
    void *next = nullptr;
    Flags flags;
    std::uint32_t clock, bus;  // MHz, bits
    std::uint64_t total;
    char name[256];
};
struct MemoryExtProperties {  // behind MemoryProperties
    Type type = kMemoryExtProperties;
    void *next = nullptr;
    std::uint32_t kind;
    std::uint64_t physical;
    std::uint32_t read, write, unit;
};
struct MemoryAccessProperties {
    Type type = kDeviceMemoryAccessProperties;
    void *next = nullptr;
    Flags host, device, shared, shared_cross_device, system;
};
struct CacheProperties {
    Type type = kDeviceCacheProperties;
    void *next = nullptr;
    Flags flags;
    std::size_t bytes;
};
struct PciProperties {
    Type type = kPciExtProperties;
    void *next = nullptr;
    std::uint32_t domain, bus, device, function;
    std::int32_t generation, width;
    std::int64_t bandwidth;
};
struct ContextDesc {
    Type type = kContextDesc;
    const void *next = nullptr;
    Flags flags = 0;
};
struct QueueDesc {
    Type type = kCommandQueueDesc;
    const void *next = nullptr;
    std::uint32_t ordinal = 0, index = 0;
    Flags flags = 0;
    std::uint32_t mode = kQueueAsynchronous, priority = kPriorityNormal;
};
struct ListDesc {
    Type type = kCommandListDesc;
    const void *next = nullptr;
    std::uint32_t ordinal = 0;
    Flags flags = 0;
};
struct EventPoolDesc {
    Type type = kEventPoolDesc;
    const void *next = nullptr;
    Flags flags = kPoolHostVisible | kPoolKernelTimestamp;
    std::uint32_t count = 0;
};
struct EventDesc {
    Type type = kEventDesc;
    const void *next = nullptr;
    std::uint32_t index = 0;
    Flags signal = kScopeHost, wait = kScopeHost;
};
struct Timestamps {
    std::uint64_t global_start, global_end, context_start, context_end;
};
struct DeviceMemDesc {
    Type type = kDeviceMemAllocDesc;
    const void *next = nullptr;
    Flags flags = 0;
    std::uint32_t ordinal = 0;
};
struct HostMemDesc {
    Type type = kHostMemAllocDesc;
    const void *next = nullptr;
    Flags flags = 0;
};
struct RelaxedLimitsDesc {
    Type type = kRelaxedAllocationLimits;
    const void *next = nullptr;
    Flags flags = kRelaxedMaxSize;
};
struct ModuleDesc {
    Type type = kModuleDesc;
    const void *next = nullptr;
    std::uint32_t format = kFormatSpirv;
    std::size_t size = 0;
    const std::uint8_t *input = nullptr;
    const char *flags = nullptr;
    const void *constants = nullptr;
};
struct KernelDesc {
    Type type = kKernelDesc;
    const void *next = nullptr;
    Flags flags = 0;
    const char *name = nullptr;
};
struct GroupCount {
    std::uint32_t x = 1, y = 1, z = 1;
};
struct IpcHandle {
    char data[64];
};

/// Of Sysman, which numbers its structures anew.
enum SysmanType : std::uint32_t { kSysmanPciProperties = 0x2, kSysmanMemProperties = 0xb, kSysmanMemState = 0x1e };
constexpr std::uint32_t kOnDevice = 1;

struct SysmanPciProperties {
    SysmanType type = kSysmanPciProperties;
    void *next = nullptr;
    std::uint32_t domain, bus, device, function;
    std::int32_t generation, width;
    std::int64_t bandwidth;
    Bool bandwidth_counters, packet_counters, replay_counters;
};
struct SysmanMemProperties {
    SysmanType type = kSysmanMemProperties;
    void *next = nullptr;
    std::uint32_t kind;
    Bool on_subdevice;
    std::uint32_t subdevice, location;
    std::uint64_t bytes;
    std::int32_t bus, channels;
};
struct SysmanMemState {
    SysmanType type = kSysmanMemState;
    const void *next = nullptr;
    std::uint32_t health;
    std::uint64_t free, size;
};

// The parameter lists of the functions that are looked up in the loader. All return a Result.
#define GT_ZE_FUNCTIONS(X)                                                                                            \
    X(zeInit, (Flags))                                                                                                \
    X(zeDriverGet, (std::uint32_t *, Object *))                                                                       \
    X(zeDriverGetApiVersion, (Object, std::uint32_t *))                                                               \
    X(zeDriverGetProperties, (Object, DriverProperties *))                                                            \
    X(zeDeviceGet, (Object, std::uint32_t *, Object *))                                                               \
    X(zeDeviceGetProperties, (Object, DeviceProperties *))                                                            \
    X(zeDeviceGetComputeProperties, (Object, ComputeProperties *))                                                    \
    X(zeDeviceGetModuleProperties, (Object, ModuleProperties *))                                                      \
    X(zeDeviceGetCommandQueueGroupProperties, (Object, std::uint32_t *, QueueGroupProperties *))                      \
    X(zeDeviceGetMemoryProperties, (Object, std::uint32_t *, MemoryProperties *))                                     \
    X(zeDeviceGetMemoryAccessProperties, (Object, MemoryAccessProperties *))                                          \
    X(zeDeviceGetCacheProperties, (Object, std::uint32_t *, CacheProperties *))                                       \
    X(zeDeviceCanAccessPeer, (Object, Object, Bool *))                                                                \
    X(zeContextCreate, (Object, const ContextDesc *, Object *))                                                       \
    X(zeContextDestroy, (Object))                                                                                     \
    X(zeCommandQueueCreate, (Object, Object, const QueueDesc *, Object *))                                            \
    X(zeCommandQueueDestroy, (Object))                                                                                \
    X(zeCommandQueueExecuteCommandLists, (Object, std::uint32_t, Object *, Object))                                   \
    X(zeCommandQueueSynchronize, (Object, std::uint64_t))                                                             \
    X(zeCommandListCreate, (Object, Object, const ListDesc *, Object *))                                              \
    X(zeCommandListCreateImmediate, (Object, Object, const QueueDesc *, Object *))                                    \
    X(zeCommandListDestroy, (Object))                                                                                 \
    X(zeCommandListClose, (Object))                                                                                   \
    X(zeCommandListAppendBarrier, (Object, Object, std::uint32_t, Object *))                                          \
    X(zeCommandListAppendLaunchKernel, (Object, Object, const GroupCount *, Object, std::uint32_t, Object *))         \
    X(zeCommandListAppendMemoryCopy, (Object, void *, const void *, std::size_t, Object, std::uint32_t, Object *))    \
    X(zeCommandListAppendMemoryPrefetch, (Object, const void *, std::size_t))                                         \
    X(zeCommandListAppendMemAdvise, (Object, Object, const void *, std::size_t, std::uint32_t))                       \
    X(zeEventPoolCreate, (Object, const EventPoolDesc *, std::uint32_t, Object *, Object *))                          \
    X(zeEventPoolDestroy, (Object))                                                                                   \
    X(zeEventCreate, (Object, const EventDesc *, Object *))                                                           \
    X(zeEventDestroy, (Object))                                                                                       \
    X(zeEventHostSignal, (Object))                                                                                    \
    X(zeEventHostSynchronize, (Object, std::uint64_t))                                                                \
    X(zeEventHostReset, (Object))                                                                                     \
    X(zeEventQueryKernelTimestamp, (Object, Timestamps *))                                                            \
    X(zeMemAllocDevice, (Object, const DeviceMemDesc *, std::size_t, std::size_t, Object, void **))                   \
    X(zeMemAllocHost, (Object, const HostMemDesc *, std::size_t, std::size_t, void **))                               \
    X(zeMemAllocShared,                                                                                               \
      (Object, const DeviceMemDesc *, const HostMemDesc *, std::size_t, std::size_t, Object, void **))                \
    X(zeMemFree, (Object, void *))                                                                                    \
    X(zeMemGetIpcHandle, (Object, const void *, IpcHandle *))                                                         \
    X(zeMemOpenIpcHandle, (Object, Object, IpcHandle, Flags, void **))                                                \
    X(zeMemCloseIpcHandle, (Object, const void *))                                                                    \
    X(zeModuleCreate, (Object, Object, const ModuleDesc *, Object *, Object *))                                       \
    X(zeModuleDestroy, (Object))                                                                                      \
    X(zeModuleGetNativeBinary, (Object, std::size_t *, std::uint8_t *))                                               \
    X(zeModuleBuildLogGetString, (Object, std::size_t *, char *))                                                     \
    X(zeModuleBuildLogDestroy, (Object))                                                                              \
    X(zeKernelCreate, (Object, const KernelDesc *, Object *))                                                         \
    X(zeKernelDestroy, (Object))                                                                                      \
    X(zeKernelSetGroupSize, (Object, std::uint32_t, std::uint32_t, std::uint32_t))                                    \
    X(zeKernelSetArgumentValue, (Object, std::uint32_t, std::size_t, const void *))

/// Extensions, or younger than 1.0: what is missing is null.
#define GT_ZE_NEWER_FUNCTIONS(X)                                                   \
    X(zeDevicePciGetPropertiesExt, (Object, PciProperties *))                      \
    X(zesDevicePciGetProperties, (Object, SysmanPciProperties *))                  \
    X(zesDeviceEnumMemoryModules, (Object, std::uint32_t *, Object *))             \
    X(zesMemoryGetProperties, (Object, SysmanMemProperties *))                     \
    X(zesMemoryGetState, (Object, SysmanMemState *))

/// Since 1.5. Before, Sysman came with zeInit, and only where an environment variable asked for it.
#define GT_ZE_1_5_FUNCTIONS(X)                        \
    X(zesInit, (Flags))                               \
    X(zesDriverGet, (std::uint32_t *, Object *))      \
    X(zesDeviceGet, (Object, std::uint32_t *, Object *))

}  // namespace ze
