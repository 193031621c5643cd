// Holds gpu_tests/host/ze_abi.h against the vendor's own header: sizes, places, numbers, parameters. Compiled, not run.
#include <level_zero/ze_api.h>
#include <level_zero/zes_api.h>

#include <cstddef>
#include <type_traits>

#include "ze_abi.h"

#define SAME(mine, theirs) static_assert(sizeof(mine) == sizeof(theirs), #mine)
#define AT(mine, member, theirs, their_member) \
    static_assert(offsetof(mine, member) == offsetof(theirs, their_member), #mine "." #member)
#define EQ(mine, theirs) static_assert(static_cast<std::uint64_t>(mine) == static_cast<std::uint64_t>(theirs), #mine)
#define TYPE(mine, theirs) EQ(ze::mine, ZE_STRUCTURE_TYPE_##theirs)

SAME(ze::DriverProperties, ze_driver_properties_t);
SAME(ze::DeviceProperties, ze_device_properties_t);
SAME(ze::ComputeProperties, ze_device_compute_properties_t);
SAME(ze::ModuleProperties, ze_device_module_properties_t);
SAME(ze::QueueGroupProperties, ze_command_queue_group_properties_t);
SAME(ze::MemoryProperties, ze_device_memory_properties_t);
SAME(ze::EuCount, ze_eu_count_ext_t);
SAME(ze::MemoryExtProperties, ze_device_memory_ext_properties_t);
SAME(ze::MemoryAccessProperties, ze_device_memory_access_properties_t);
SAME(ze::CacheProperties, ze_device_cache_properties_t);
SAME(ze::PciProperties, ze_pci_ext_properties_t);
SAME(ze::ContextDesc, ze_context_desc_t);
SAME(ze::QueueDesc, ze_command_queue_desc_t);
SAME(ze::ListDesc, ze_command_list_desc_t);
SAME(ze::EventPoolDesc, ze_event_pool_desc_t);
SAME(ze::EventDesc, ze_event_desc_t);
SAME(ze::Timestamps, ze_kernel_timestamp_result_t);
SAME(ze::DeviceMemDesc, ze_device_mem_alloc_desc_t);
SAME(ze::HostMemDesc, ze_host_mem_alloc_desc_t);
SAME(ze::RelaxedLimitsDesc, ze_relaxed_allocation_limits_exp_desc_t);
SAME(ze::ModuleDesc, ze_module_desc_t);
SAME(ze::KernelDesc, ze_kernel_desc_t);
SAME(ze::GroupCount, ze_group_count_t);
SAME(ze::IpcHandle, ze_ipc_mem_handle_t);
SAME(ze::SysmanPciProperties, zes_pci_properties_t);
SAME(ze::SysmanMemProperties, zes_mem_properties_t);
SAME(ze::SysmanMemState, zes_mem_state_t);
SAME(ze::Bool, ze_bool_t);

AT(ze::DriverProperties, version, ze_driver_properties_t, driverVersion);
AT(ze::DeviceProperties, vendor, ze_device_properties_t, vendorId);
AT(ze::DeviceProperties, device, ze_device_properties_t, deviceId);
AT(ze::DeviceProperties, core_clock, ze_device_properties_t, coreClockRate);
AT(ze::DeviceProperties, max_alloc, ze_device_properties_t, maxMemAllocSize);
AT(ze::DeviceProperties, eus, ze_device_properties_t, numEUsPerSubslice);
AT(ze::DeviceProperties, timer, ze_device_properties_t, timerResolution);
AT(ze::DeviceProperties, kernel_timestamp_bits, ze_device_properties_t, kernelTimestampValidBits);
AT(ze::DeviceProperties, uuid, ze_device_properties_t, uuid);
AT(ze::DeviceProperties, name, ze_device_properties_t, name);
AT(ze::DeviceProperties, slices, ze_device_properties_t, numSlices);
AT(ze::DeviceProperties, queue_priority, ze_device_properties_t, maxCommandQueuePriority);
AT(ze::ComputeProperties, shared, ze_device_compute_properties_t, maxSharedLocalMemory);
AT(ze::ComputeProperties, subgroups, ze_device_compute_properties_t, subGroupSizes);
AT(ze::ModuleProperties, flags, ze_device_module_properties_t, flags);
AT(ze::QueueGroupProperties, queues, ze_command_queue_group_properties_t, numQueues);
AT(ze::EuCount, total, ze_eu_count_ext_t, numTotalEUs);
AT(ze::MemoryExtProperties, physical, ze_device_memory_ext_properties_t, physicalSize);
AT(ze::MemoryExtProperties, read, ze_device_memory_ext_properties_t, readBandwidth);
AT(ze::MemoryExtProperties, unit, ze_device_memory_ext_properties_t, bandwidthUnit);
AT(ze::MemoryProperties, total, ze_device_memory_properties_t, totalSize);
AT(ze::MemoryProperties, clock, ze_device_memory_properties_t, maxClockRate);
AT(ze::MemoryAccessProperties, system, ze_device_memory_access_properties_t, sharedSystemAllocCapabilities);
AT(ze::CacheProperties, bytes, ze_device_cache_properties_t, cacheSize);
AT(ze::PciProperties, function, ze_pci_ext_properties_t, address.function);
AT(ze::QueueDesc, priority, ze_command_queue_desc_t, priority);
AT(ze::QueueDesc, mode, ze_command_queue_desc_t, mode);
AT(ze::EventPoolDesc, count, ze_event_pool_desc_t, count);
AT(ze::EventDesc, wait, ze_event_desc_t, wait);
AT(ze::ModuleDesc, input, ze_module_desc_t, pInputModule);
AT(ze::KernelDesc, name, ze_kernel_desc_t, pKernelName);
AT(ze::SysmanPciProperties, function, zes_pci_properties_t, address.function);
AT(ze::SysmanPciProperties, bandwidth, zes_pci_properties_t, maxSpeed.maxBandwidth);
AT(ze::SysmanMemProperties, location, zes_mem_properties_t, location);
AT(ze::SysmanMemProperties, bytes, zes_mem_properties_t, physicalSize);
AT(ze::SysmanMemState, free, zes_mem_state_t, free);
AT(ze::SysmanMemState, size, zes_mem_state_t, size);

EQ(ze::kDeviceLost, ZE_RESULT_ERROR_DEVICE_LOST);
EQ(ze::kOutOfHostMemory, ZE_RESULT_ERROR_OUT_OF_HOST_MEMORY);
EQ(ze::kOutOfDeviceMemory, ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY);
EQ(ze::kModuleBuildFailure, ZE_RESULT_ERROR_MODULE_BUILD_FAILURE);
EQ(ze::kModuleLinkFailure, ZE_RESULT_ERROR_MODULE_LINK_FAILURE);
EQ(ze::kUninitialized, ZE_RESULT_ERROR_UNINITIALIZED);
EQ(ze::kUnsupportedFeature, ZE_RESULT_ERROR_UNSUPPORTED_FEATURE);
EQ(ze::kInvalidArgument, ZE_RESULT_ERROR_INVALID_ARGUMENT);
EQ(ze::kInvalidNullHandle, ZE_RESULT_ERROR_INVALID_NULL_HANDLE);
EQ(ze::kInvalidSize, ZE_RESULT_ERROR_INVALID_SIZE);
EQ(ze::kUnsupportedSize, ZE_RESULT_ERROR_UNSUPPORTED_SIZE);
EQ(ze::kInvalidNativeBinary, ZE_RESULT_ERROR_INVALID_NATIVE_BINARY);
EQ(ze::kInvalidKernelName, ZE_RESULT_ERROR_INVALID_KERNEL_NAME);
EQ(ze::kInvalidGroupSize, ZE_RESULT_ERROR_INVALID_GROUP_SIZE_DIMENSION);
EQ(ze::kInvalidKernelArgumentIndex, ZE_RESULT_ERROR_INVALID_KERNEL_ARGUMENT_INDEX);
EQ(ze::kInvalidKernelArgumentSize, ZE_RESULT_ERROR_INVALID_KERNEL_ARGUMENT_SIZE);
EQ(ze::kUnknown, ZE_RESULT_ERROR_UNKNOWN);
EQ(ze::kNotReady, ZE_RESULT_NOT_READY);
EQ(ze::kDeviceTypeGpu, ZE_DEVICE_TYPE_GPU);
EQ(ze::kDeviceTypeCpu, ZE_DEVICE_TYPE_CPU);
EQ(ze::kQueueGroupCompute, ZE_COMMAND_QUEUE_GROUP_PROPERTY_FLAG_COMPUTE);
EQ(ze::kQueueAsynchronous, ZE_COMMAND_QUEUE_MODE_ASYNCHRONOUS);
EQ(ze::kPriorityNormal, ZE_COMMAND_QUEUE_PRIORITY_NORMAL);
EQ(ze::kPriorityHigh, ZE_COMMAND_QUEUE_PRIORITY_PRIORITY_HIGH);
EQ(ze::kPoolHostVisible, ZE_EVENT_POOL_FLAG_HOST_VISIBLE);
EQ(ze::kPoolKernelTimestamp, ZE_EVENT_POOL_FLAG_KERNEL_TIMESTAMP);
EQ(ze::kScopeDevice, ZE_EVENT_SCOPE_FLAG_DEVICE);
EQ(ze::kScopeHost, ZE_EVENT_SCOPE_FLAG_HOST);
EQ(ze::kFormatSpirv, ZE_MODULE_FORMAT_IL_SPIRV);
EQ(ze::kFormatNative, ZE_MODULE_FORMAT_NATIVE);
EQ(ze::kAccessRw, ZE_MEMORY_ACCESS_CAP_FLAG_RW);
EQ(ze::kAccessConcurrentAtomic, ZE_MEMORY_ACCESS_CAP_FLAG_CONCURRENT_ATOMIC);
EQ(ze::kModuleFp16, ZE_DEVICE_MODULE_FLAG_FP16);
EQ(ze::kModuleFp64, ZE_DEVICE_MODULE_FLAG_FP64);
EQ(ze::kModuleInt64Atomics, ZE_DEVICE_MODULE_FLAG_INT64_ATOMICS);
EQ(ze::kDeviceIntegrated, ZE_DEVICE_PROPERTY_FLAG_INTEGRATED);
EQ(ze::kAdviseHere, ZE_MEMORY_ADVICE_SET_PREFERRED_LOCATION);
EQ(ze::kAdviseHereNoMore, ZE_MEMORY_ADVICE_CLEAR_PREFERRED_LOCATION);
EQ(ze::kSysmanPciProperties, ZES_STRUCTURE_TYPE_PCI_PROPERTIES);
EQ(ze::kSysmanMemProperties, ZES_STRUCTURE_TYPE_MEM_PROPERTIES);
EQ(ze::kSysmanMemState, ZES_STRUCTURE_TYPE_MEM_STATE);
EQ(ze::kOnDevice, ZES_MEM_LOC_DEVICE);
EQ(ze::kBytesPerNanosecond, ZE_BANDWIDTH_UNIT_BYTES_PER_NANOSEC);
EQ(ze::kRelaxedMaxSize, ZE_RELAXED_ALLOCATION_LIMITS_EXP_FLAG_MAX_SIZE);

TYPE(kDriverProperties, DRIVER_PROPERTIES);
TYPE(kDeviceProperties, DEVICE_PROPERTIES);
TYPE(kDeviceComputeProperties, DEVICE_COMPUTE_PROPERTIES);
TYPE(kDeviceModuleProperties, DEVICE_MODULE_PROPERTIES);
TYPE(kCommandQueueGroupProperties, COMMAND_QUEUE_GROUP_PROPERTIES);
TYPE(kDeviceMemoryProperties, DEVICE_MEMORY_PROPERTIES);
TYPE(kEuCountExt, EU_COUNT_EXT);
TYPE(kMemoryExtProperties, DEVICE_MEMORY_EXT_PROPERTIES);
TYPE(kDeviceMemoryAccessProperties, DEVICE_MEMORY_ACCESS_PROPERTIES);
TYPE(kDeviceCacheProperties, DEVICE_CACHE_PROPERTIES);
TYPE(kContextDesc, CONTEXT_DESC);
TYPE(kCommandQueueDesc, COMMAND_QUEUE_DESC);
TYPE(kCommandListDesc, COMMAND_LIST_DESC);
TYPE(kEventPoolDesc, EVENT_POOL_DESC);
TYPE(kEventDesc, EVENT_DESC);
TYPE(kDeviceMemAllocDesc, DEVICE_MEM_ALLOC_DESC);
TYPE(kHostMemAllocDesc, HOST_MEM_ALLOC_DESC);
TYPE(kModuleDesc, MODULE_DESC);
TYPE(kKernelDesc, KERNEL_DESC);
TYPE(kPciExtProperties, PCI_EXT_PROPERTIES);
TYPE(kRelaxedAllocationLimits, RELAXED_ALLOCATION_LIMITS_EXP_DESC);
TYPE(kDeviceProperties12, DEVICE_PROPERTIES_1_2);

template <class>
struct Signature;
template <class R, class... A>
struct Signature<R(A...)> {
    static constexpr std::size_t kCount = sizeof...(A);
    static constexpr std::size_t kSizes[] = {sizeof(A)..., 0};
};

template <class Mine, class Theirs>
constexpr bool same_parameters() {
    if (Signature<Mine>::kCount != Signature<Theirs>::kCount) return false;
    for (std::size_t i = 0; i < Signature<Mine>::kCount; ++i) {
        if (Signature<Mine>::kSizes[i] != Signature<Theirs>::kSizes[i]) return false;
    }
    return true;
}

namespace ze {
#define CHECK(function, parameters) \
    static_assert(same_parameters<Result parameters, std::remove_pointer_t<decltype(&::function)>>(), #function);
GT_ZE_FUNCTIONS(CHECK)
GT_ZE_NEWER_FUNCTIONS(CHECK)
}  // namespace ze
