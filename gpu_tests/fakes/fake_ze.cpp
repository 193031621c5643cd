// libze_loader.so.1 with one driver over the simulated GPU, with the true ABI. GT_FAKE_FAULT names what is wrong with
// it. The runner recognises the library by the symbol gt_fake_library and reports its devices as kind "fake". It never
// belongs in a guest.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "damage.h"
#include "ze_objects.h"

using namespace ze;
using namespace gt_ze;
using gt_fake::is;
namespace sim = gt_sim;

extern "C" {
extern const int gt_fake_library;
const int gt_fake_library = 1;
}

namespace {

constexpr std::uint32_t kArc = 0x56a0;  // an Arc A770

bool initialised = false;

char driver_object;
char device_objects[sim::Description::kDevices];

/// The lines of Intel's xe.
std::string complaint(const std::string &bdf, int status) {
    if (status == sim::kIllegalAddress) return "xe " + bdf + ": [drm] GT0: Engine memory CAT error [18]: class=ccs";
    if (status == sim::kUnknown) return "xe " + bdf + ": [drm] *ERROR* CRITICAL: Xe has declared device as wedged.";
    return "xe " + bdf + ": [drm] GT0: Engine reset: engine_class=ccs, logical_mask: 0x1, guc_id=2, state=0x289";
}

template <class T>
Result fill(std::uint32_t *count, T *out, const T &value) {
    if (out && *count >= 1) *out = value;
    *count = 1;
    return kSuccess;
}

}  // namespace

namespace gt_ze {

int index_of(Object device) { return static_cast<int>(static_cast<char *>(device) - device_objects); }
bool known(Object device) { return index_of(device) >= 0 && index_of(device) < sim::Description::kDevices; }

Result put(std::uint32_t *count, Object *out, std::uint32_t have, Object (*object)(std::uint32_t)) {
    if (!out || *count == 0) return *count = have, kSuccess;
    *count = std::min(*count, have);
    for (std::uint32_t i = 0; i < *count; ++i) out[i] = object(i);
    return kSuccess;
}

Result result_of(sim::Status status) {
    switch (status) {
        case sim::kSuccess: return kSuccess;
        case sim::kOutOfMemory: return kOutOfDeviceMemory;
        case sim::kInvalidValue: return kInvalidArgument;
        case sim::kIllegalAddress:
        case sim::kAssert:
        case sim::kLaunchFailed: return kDeviceLost;
        case sim::kInvalidContext: return kInvalidNullHandle;
        default: return kUnknown;
    }
}

sim::Context *enter(Context *context, int device) {
    if (!context->of[device]) sim::make_context(device, complaint, &context->of[device]);
    sim::use(context->of[device]);
    return context->of[device];
}

}  // namespace gt_ze

extern "C" {

Result zeInit(Flags) {
    if (is("no_platform")) return kUninitialized;
    initialised = true;
    return kSuccess;
}

Result zeDriverGet(std::uint32_t *count, Object *drivers) {
    if (!initialised) return kUninitialized;
    return put(count, drivers, 1, [](std::uint32_t) -> Object { return &driver_object; });
}
Result zeDriverGetApiVersion(Object, std::uint32_t *version) { return *version = 1u << 16 | 3, kSuccess; }
Result zeDriverGetProperties(Object, DriverProperties *out) {
    return out->version = 1u << 24 | 3u << 16 | 27642, kSuccess;
}

Result zeDeviceGet(Object, std::uint32_t *count, Object *devices) {
    if (!devices) sim::count_devices();
    return put(count, devices, static_cast<std::uint32_t>(sim::devices()),
               [](std::uint32_t i) -> Object { return &device_objects[i]; });
}

Result zeDeviceGetProperties(Object device, DeviceProperties *out) {
    using D = sim::Description;
    if (!known(device)) return kInvalidNullHandle;
    out->kind = kDeviceTypeGpu;
    out->vendor = 0x8086, out->device = kArc;
    out->core_clock = D::kClockKilohertz / 1000;
    out->max_alloc = kMaxAlloc;
    out->queue_priority = 1;
    // As of a part whose slices are not all alike: the product is less than the sum.
    static_assert(D::kUnits > 3, "rounded down, a subslice is still there");
    out->slices = 3, out->subslices = D::kUnits / 3, out->eus = 1;
    if (auto *count = static_cast<EuCount *>(out->next)) {
        if (count->type != kEuCountExt) return kInvalidArgument;
        count->total = D::kUnits;
    }
    // Nanoseconds a cycle in the first form of the structure, cycles a second in the second.
    out->timer = out->type == kDeviceProperties12 ? kTimer : 1;
    out->timestamp_bits = out->kernel_timestamp_bits = kTimerBits;
    for (int i = 0; i < 16; ++i) out->uuid[i] = static_cast<std::uint8_t>(0xA0 + 16 * index_of(device) + i);
    std::snprintf(out->name, sizeof out->name, "%cimulated GPU %d", sim::renamed() ? 's' : 'S', index_of(device));
    return kSuccess;
}
Result zeDeviceGetComputeProperties(Object, ComputeProperties *out) {
    out->max_group = out->max_group_x = sim::Description::kGroup;
    out->shared = sim::Description::kSharedBytes;
    out->subgroup_count = 1, out->subgroups[0] = sim::Description::kLanes;
    return kSuccess;
}
Result zeDeviceGetModuleProperties(Object, ModuleProperties *out) {
    out->spirv = 1u << 16 | 2;
    out->flags = kModuleInt64Atomics;  // an Arc has no fp64
    out->printf_buffer = sim::Description::kPrintfBytes;
    return kSuccess;
}
Result zeDeviceGetCommandQueueGroupProperties(Object, std::uint32_t *count, QueueGroupProperties *out) {
    QueueGroupProperties group{};
    group.flags = kQueueGroupCompute, group.queues = 4;
    return fill(count, out, group);
}
Result zeDeviceGetMemoryProperties(Object, std::uint32_t *count, MemoryProperties *out) {
    using D = sim::Description;
    MemoryProperties memory{};
    // Intel's driver states the width of an address for that of the bus.
    memory.clock = D::kMemoryClockKilohertz / 1000, memory.bus = 64;
    memory.total = sim::memory_bytes();
    auto *more = out ? static_cast<MemoryExtProperties *>(out->next) : nullptr;
    if (more) {
        if (more->type != kMemoryExtProperties) return kInvalidArgument;
        more->read = more->write = static_cast<std::uint32_t>(2e-6 * D::kMemoryClockKilohertz * D::kBusBits / 8);
        more->unit = kBytesPerNanosecond;
    }
    return fill(count, out, memory);
}
Result zeDeviceGetMemoryAccessProperties(Object, MemoryAccessProperties *out) {
    out->host = out->device = out->shared = kAccessRw | kAccessConcurrentAtomic;
    out->system = kAccessRw;
    return kSuccess;
}
Result zeDeviceGetCacheProperties(Object, std::uint32_t *count, CacheProperties *out) {
    CacheProperties cache{};
    cache.bytes = sim::Description::kL2;
    return fill(count, out, cache);
}
Result zeDevicePciGetPropertiesExt(Object device, PciProperties *out) {
    return std::sscanf(sim::bdf(index_of(device)).c_str(), "%x:%x:%x.%x", &out->domain, &out->bus, &out->device,
                       &out->function) == 4
               ? kSuccess
               : kUnknown;
}
Result zeDeviceCanAccessPeer(Object device, Object peer, Bool *can) { return *can = device != peer, kSuccess; }

Result zeContextCreate(Object, const ContextDesc *desc, Object *context) {
    if (desc->type != kContextDesc) return kInvalidArgument;
    auto made = std::make_unique<Context>();
    return *context = made.release(), kSuccess;
}
Result zeContextDestroy(Object object) {
    const std::unique_ptr<Context> context(static_cast<Context *>(object));
    for (sim::Context *one : context->of) {
        if (one) sim::destroy(one);
    }
    return kSuccess;
}

}  // extern "C"
