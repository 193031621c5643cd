// The fake Level Zero's Sysman: where each device is, and how much of its memory is free.
#include <cstdio>
#include <cstdlib>

#include "ze_objects.h"

using namespace ze;
using namespace gt_ze;
namespace sim = gt_sim;

namespace {

bool initialised = false;
char driver_object, device_objects[sim::Description::kDevices], module_objects[sim::Description::kDevices];

}  // namespace

extern "C" {

Result zesInit(Flags) { return initialised = true, kSuccess; }
Result zesDriverGet(std::uint32_t *count, Object *drivers) {
    if (!initialised) return kUninitialized;
    return put(count, drivers, 1, [](std::uint32_t) -> Object { return &driver_object; });
}
Result zesDeviceGet(Object driver, std::uint32_t *count, Object *devices) {
    if (driver != &driver_object) return kInvalidNullHandle;
    return put(count, devices, static_cast<std::uint32_t>(sim::devices()),
               [](std::uint32_t i) -> Object { return &device_objects[i]; });
}
Result zesDevicePciGetProperties(Object device, SysmanPciProperties *out) {
    if (out->type != kSysmanPciProperties) return kInvalidArgument;
    const int index = static_cast<int>(static_cast<char *>(device) - device_objects);
    return std::sscanf(sim::bdf(index).c_str(), "%x:%x:%x.%x", &out->domain, &out->bus, &out->device,
                       &out->function) == 4
               ? kSuccess
               : kUnknown;
}
Result zesDeviceEnumMemoryModules(Object device, std::uint32_t *count, Object *modules) {
    if (modules && *count >= 1) *modules = module_objects + (static_cast<char *>(device) - device_objects);
    return *count = 1, kSuccess;
}
Result zesMemoryGetProperties(Object, SysmanMemProperties *out) {
    if (out->type != kSysmanMemProperties) return kInvalidArgument;
    return out->location = kOnDevice, kSuccess;
}
Result zesMemoryGetState(Object module, SysmanMemState *out) {
    if (out->type != kSysmanMemState) return kInvalidArgument;
    std::size_t free = 0, size = 0;
    const int index = static_cast<int>(static_cast<char *>(module) - module_objects);
    const sim::Status status = sim::memory_info(index, &free, &size);
    // To a user without CAP_PERFMON the kernel calls all memory free.
    out->free = std::getenv("GT_FAKE_UNPRIVILEGED") ? size : free;
    out->size = size;
    return result_of(status);
}

}  // extern "C"
