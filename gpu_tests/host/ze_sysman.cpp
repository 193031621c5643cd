#include "ze_sysman.h"

namespace gt {
namespace ze_driver {

using namespace ze;

namespace {

/// Sysman's handle of the device at this PCI address; null when it knows none.
Object device_at(const Api &api, const PciProperties &place) {
    const auto drivers = [&](std::uint32_t *n, Object *into) { return api.zesDriverGet(n, into); };
    for (Object driver : all(drivers, "zesDriverGet")) {
        const auto devices = [&](std::uint32_t *n, Object *into) { return api.zesDeviceGet(driver, n, into); };
        for (Object device : all(devices, "zesDeviceGet")) {
            SysmanPciProperties pci{};
            must(api.zesDevicePciGetProperties(device, &pci), "zesDevicePciGetProperties");
            const bool same = pci.domain == place.domain && pci.bus == place.bus && pci.device == place.device &&
                              pci.function == place.function;
            if (same) return device;
        }
    }
    return nullptr;
}

}  // namespace

Sysman::Sysman(const Opened &on) : on_(on) {
    const Api &api = on.api;
#define GT_ABSENT(name, parameters) || !api.name
    if (false GT_ZE_NEWER_FUNCTIONS(GT_ABSENT) GT_ZE_1_5_FUNCTIONS(GT_ABSENT)) return;
#undef GT_ABSENT
    // Not every driver has all of Sysman for every device, and none of it is what the tests are about.
    try {
        find();
    } catch (const ApiFailure &) {
        modules_.clear();
    }
}

void Sysman::find() {
    const Api &api = on_.api;
    PciProperties place{};
    must(api.zeDevicePciGetPropertiesExt(on_.device, &place), "zeDevicePciGetPropertiesExt");
    must(api.zesInit(0), "zesInit");
    const Object device = device_at(api, place);
    if (!device) return;
    const auto get = [&](std::uint32_t *n, Object *into) { return api.zesDeviceEnumMemoryModules(device, n, into); };
    for (Object module : all(get, "zesDeviceEnumMemoryModules")) {
        SysmanMemProperties about{};
        must(api.zesMemoryGetProperties(module, &about), "zesMemoryGetProperties");
        if (about.location == kOnDevice) modules_.push_back(module);
    }
}

/// The kernel tells how much is free to the privileged alone (CAP_PERFMON): for others all of it is, always. And where
/// the opened device is one tile of several, the modules can be those of all.
bool Sysman::tells() const {
    if (modules_.empty() || (on_.about.flags & kDeviceIntegrated)) return false;
    std::uint64_t own = 0;
    for (const auto &memory : listed<MemoryProperties>(on_.device, on_.api.zeDeviceGetMemoryProperties)) {
        own += memory.total;
    }
    try {
        const MemoryInfo now = memory();
        return now.free > 0 && now.free < now.total && now.total <= own + own / 8;
    } catch (const ApiFailure &) {
        return false;
    }
}

MemoryInfo Sysman::memory() const {
    MemoryInfo out;
    for (Object module : modules_) {
        SysmanMemState state{};
        must(on_.api.zesMemoryGetState(module, &state), "zesMemoryGetState");
        out.free += state.free;
        out.total += state.size;
    }
    return out;
}

}  // namespace ze_driver
}  // namespace gt
