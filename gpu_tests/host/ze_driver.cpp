#include "ze_driver.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "intel.h"

namespace gt {
namespace ze_driver {

using namespace ze;

namespace {

constexpr std::uint32_t kIntel = 0x8086;

/// All vector engines (EUs). The product of the counts per slice rounds down where a slice has fewer than another.
std::uint32_t vector_engines(const Api &api, Object device) {
    EuCount count{};
    DeviceProperties about{};
    about.next = &count;
    must(api.zeDeviceGetProperties(device, &about), "zeDeviceGetProperties");
    return count.total > 0 ? count.total : about.slices * about.subslices * about.eus;
}

/// Bytes a second; 0 where the driver does not say. Its clock and bus width do not help: Intel's driver states the
/// width of addresses for the latter.
double read_bandwidth(const Api &api, Object device) {
    std::uint32_t count = 0;
    must(api.zeDeviceGetMemoryProperties(device, &count, nullptr), "zeDeviceGetMemoryProperties");
    std::vector<MemoryProperties> memories(count, MemoryProperties{});
    std::vector<MemoryExtProperties> more(count, MemoryExtProperties{});
    for (std::uint32_t i = 0; i < count; ++i) memories[i].next = &more[i];
    if (count) must(api.zeDeviceGetMemoryProperties(device, &count, memories.data()), "zeDeviceGetMemoryProperties");
    double out = 0.0;
    for (const MemoryExtProperties &one : more) out += one.unit == kBytesPerNanosecond ? one.read * 1e9 : 0.0;
    return out;
}

}  // namespace

Cause cause_of(Result status) {
    switch (status) {
        case kOutOfHostMemory:
        case kOutOfDeviceMemory:
        case kUnsupportedSize: return Cause::kOutOfMemory;
        case kModuleBuildFailure:
        case kModuleLinkFailure:
        case kInvalidNativeBinary: return Cause::kBadImage;
        case kDeviceLost: return Cause::kDeviceLost;
        case kUninitialized: return Cause::kNoDevice;
        case kInvalidGroupSize:
        case kInvalidKernelArgumentIndex:
        case kInvalidKernelArgumentSize: return Cause::kLaunch;
        default: return Cause::kOther;
    }
}

void must(Result status, const char *what) {
    if (status == kSuccess) return;
    char text[160];
    std::snprintf(text, sizeof text, "%s failed with Level Zero error 0x%08x", what, status);
    throw ApiFailure(text, cause_of(status), static_cast<long>(status));
}

Api load_driver(const std::string &library, bool &fake) {
    Api api;
    const char *name = library.empty() ? "libze_loader.so.1" : library.c_str();
    void *handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = ::dlerror();
        throw Unavailable(std::string("no Level Zero loader: ") + (why ? why : name));
    }
#define GT_LOOKUP(function, parameters) \
api.function = reinterpret_cast<Result(*) parameters>(::dlsym(handle, #function));
#define GT_REQUIRE(function, parameters) \
GT_LOOKUP(function, parameters)      \
if (!api.function) throw ApiFailure(std::string(name) + " lacks the symbol " #function);
    GT_ZE_FUNCTIONS(GT_REQUIRE)
    GT_ZE_NEWER_FUNCTIONS(GT_LOOKUP)
    GT_ZE_1_5_FUNCTIONS(GT_LOOKUP)
#undef GT_REQUIRE
#undef GT_LOOKUP
    fake = ::dlsym(handle, "gt_fake_library") != nullptr;
    return api;
}

std::vector<Found> find_devices(const Api &api) {
    std::vector<Found> out;
    const Result status = api.zeInit(0);
    // The loader's answer when it finds no driver: simply no devices.
    if (status == kUninitialized) return out;
    must(status, "zeInit");
    for (Object driver : all([&](std::uint32_t *n, Object *into) { return api.zeDriverGet(n, into); }, "zeDriverGet")) {
        const auto devices = [&](std::uint32_t *n, Object *into) { return api.zeDeviceGet(driver, n, into); };
        for (Object device : all(devices, "zeDeviceGet")) {
            const DeviceProperties properties = properties_of(api, device);
            // A driver for neural processors is found by the same loader; it takes no kernels.
            if (properties.kind != kDeviceTypeGpu && properties.kind != kDeviceTypeCpu) continue;
            out.push_back({driver, device, properties});
        }
    }
    return out;
}

DeviceProperties properties_of(const Api &api, Object device) {
    DeviceProperties out{};
    must(api.zeDeviceGetProperties(device, &out), "zeDeviceGetProperties");
    return out;
}

Properties properties_for_tests(const Api &api, Object device, const DeviceProperties &about) {
    Properties p;
    p.architecture = target_of(about);
    ComputeProperties compute{};
    must(api.zeDeviceGetComputeProperties(device, &compute), "zeDeviceGetComputeProperties");
    p.max_group = compute.max_group;
    p.shared_bytes = compute.shared;
    // Where there are several, each kernel is compiled for one of them.
    if (compute.subgroup_count == 1) p.subgroup = compute.subgroups[0];
    for (const CacheProperties &cache : listed<CacheProperties>(device, api.zeDeviceGetCacheProperties)) {
        p.l2_bytes = std::max<std::uint64_t>(p.l2_bytes, cache.bytes);
    }
    p.clock_hz = about.core_clock * 1e6;
    p.memory_bandwidth = read_bandwidth(api, device);
    ModuleProperties module{};
    must(api.zeDeviceGetModuleProperties(device, &module), "zeDeviceGetModuleProperties");
    p.fp16 = module.flags & kModuleFp16;
    p.fp64 = module.flags & kModuleFp64;
    p.printf_bytes = module.printf_buffer;
    p.int64_atomics = module.flags & kModuleInt64Atomics;
    MemoryAccessProperties access{};
    must(api.zeDeviceGetMemoryAccessProperties(device, &access), "zeDeviceGetMemoryAccessProperties");
    p.managed = access.shared & kAccessRw;
    p.concurrent_managed = access.shared & kAccessConcurrentAtomic;
    p.system_memory = access.system & kAccessRw;
    p.graphs = p.callbacks = true;
    p.priorities = about.queue_priority > 0;
    return p;
}

std::string target_of(const DeviceProperties &about) {
    return about.vendor == kIntel ? intel_target(about.device) : "";
}

std::uint32_t compute_ordinal(const Api &api, Object device) {
    const auto groups = listed<QueueGroupProperties>(device, api.zeDeviceGetCommandQueueGroupProperties);
    for (std::uint32_t i = 0; i < groups.size(); ++i) {
        if (groups[i].flags & kQueueGroupCompute) return i;
    }
    throw ApiFailure("the device has no queue that computes");
}

std::string take_log(const Api &api, Object log) {
    if (!log) return "";
    std::size_t size = 0;
    std::string out;
    if (api.zeModuleBuildLogGetString(log, &size, nullptr) == kSuccess && size > 1 && size < 65536) {
        out.resize(size);
        if (api.zeModuleBuildLogGetString(log, &size, &out[0]) != kSuccess) out.clear();
        out.resize(std::strlen(out.c_str()));
    }
    api.zeModuleBuildLogDestroy(log);
    return out;
}

DeviceInfo describe(const Api &api, const Found &found, bool fake) {
    const DeviceProperties &about = found.about;
    DeviceInfo info;
    info.name = about.name;
    char text[64];
    std::snprintf(text, sizeof text, "0x%04x", about.vendor);
    info.vendor = about.vendor == kIntel ? "Intel Corporation" : text;
    DriverProperties properties{};
    must(api.zeDriverGetProperties(found.driver, &properties), "zeDriverGetProperties");
    const std::uint32_t v = properties.version;
    std::snprintf(text, sizeof text, "%u.%u.%u", v >> 24, (v >> 16) & 0xff, v & 0xffff);
    info.driver = text;
    std::uint32_t spoken = 0;
    must(api.zeDriverGetApiVersion(found.driver, &spoken), "zeDriverGetApiVersion");
    std::snprintf(text, sizeof text, "Level Zero %u.%u", spoken >> 16, spoken & 0xffff);
    info.api_version = text;
    info.platform = "Level Zero";
    info.kind = fake ? "fake" : about.kind == kDeviceTypeGpu ? "gpu" : "cpu-runtime";
    for (const MemoryProperties &memory : listed<MemoryProperties>(found.device, api.zeDeviceGetMemoryProperties)) {
        info.mem_bytes += memory.total;
    }
    info.compute_units = vector_engines(api, found.device);
    PciProperties pci{};
    if (api.zeDevicePciGetPropertiesExt && api.zeDevicePciGetPropertiesExt(found.device, &pci) == kSuccess) {
        std::snprintf(text, sizeof text, "%04x:%02x:%02x.%x", pci.domain, pci.bus, pci.device, pci.function);
        info.bdf = text;
    }
    for (const std::uint8_t byte : about.uuid) {
        std::snprintf(text, sizeof text, "%02x", byte);
        info.uuid += text;
    }
    return info;
}

}  // namespace ze_driver
}  // namespace gt
