// Which devices the driver offers, whether it says the same twice, and whether the kernel knows the same GPUs.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "../pci.h"
#include "../test.h"

namespace {

using namespace gt;

/// A vendor, and its kernel drivers that serve compute APIs.
struct Vendor {
    std::uint32_t id;
    std::vector<std::string> words, drivers;
};
const Vendor kVendors[] = {
    {0x10de, {"NVIDIA"}, {"nvidia"}},
    {0x1002, {"AMD", "Advanced Micro Devices"}, {"amdgpu"}},
    {0x8086, {"Intel"}, {"i915", "xe"}},
};
// With one of these set a driver offers fewer devices than there are, as it was told to.
constexpr const char *kMasks[] = {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
                                  "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"};
constexpr double kMemoryNear = 0.03;

const Vendor *vendor_of(const DeviceInfo &device) {
    for (const Vendor &vendor : kVendors) {
        for (const std::string &word : vendor.words) {
            if (device.vendor.find(word) != std::string::npos) return &vendor;
        }
    }
    return nullptr;
}

std::string listed(const std::vector<std::string> &items) {
    std::string out;
    for (const std::string &item : items) out += (out.empty() ? "" : ", ") + item;
    return out;
}

/// A version of numbers and dots only, as kernel modules have; what an API calls itself is none.
bool plain_version(const std::string &text) {
    return text.find('.') != std::string::npos && text.find_first_not_of("0123456789.") == std::string::npos;
}

/// One GPU as the API and as the kernel describe it.
void compare(Context &context, const DeviceInfo &device, const PciGpu &gpu) {
    char text[200];
    if (gpu.memory > 0 && context.options.backend != "opencl") {  // OpenCL offers a share of the memory
        const double ratio = static_cast<double>(device.mem_bytes) / static_cast<double>(gpu.memory);
        std::snprintf(text, sizeof text, "%s: %llu bytes, the kernel says %llu", device.bdf.c_str(),
                      static_cast<unsigned long long>(device.mem_bytes), static_cast<unsigned long long>(gpu.memory));
        const bool near = ratio >= 1.0 - kMemoryNear && ratio <= 1.0 + kMemoryNear;
        context.check("memory_as_the_kernel_says", 1, !near, near ? "" : text);
    }
    if (plain_version(device.driver) && plain_version(gpu.driver_version)) {
        const bool same = device.driver == gpu.driver_version;
        context.check("driver_as_loaded", 1, !same,
                      same ? "" : device.bdf + ": " + device.driver + ", the module is " + gpu.driver_version);
    }
    if (gpu.link.width * gpu.link.rate < gpu.possible.width * gpu.possible.rate) {
        std::snprintf(text, sizeof text, "%s runs at %.3g GT/s x%u now, both ends of its link can do %.3g GT/s x%u",
                      device.bdf.c_str(), gpu.link.rate * 1e-9, gpu.link.width, gpu.possible.rate * 1e-9,
                      gpu.possible.width);
        context.skipped("full_link", text);
    }
}

/// Every address that is offered is a device's, and every GPU that the vendor's driver holds is offered.
void against_the_kernel(Context &context, const std::vector<DeviceInfo> &devices) {
    std::set<std::string> offered;
    std::set<const Vendor *> vendors;
    for (const DeviceInfo &device : devices) {
        if (device.bdf.empty()) continue;
        offered.insert(device.bdf);
        if (const Vendor *vendor = vendor_of(device)) vendors.insert(vendor);
    }
    if (offered.empty()) {
        context.skipped("pci", "the driver tells no PCI address");
        return;
    }
    const std::string root = sysfs_root();
    // The fake drivers' devices are in no real tree.
    if (context.kind() == "fake" && root == "/sys") {
        context.skipped("pci", "the devices of a fake driver are not on PCI");
        return;
    }
    const std::vector<PciGpu> gpus = pci_gpus(root);
    std::vector<std::string> unknown, missing;
    for (const std::string &bdf : offered) {
        const auto there = std::find_if(gpus.begin(), gpus.end(), [&](const PciGpu &gpu) { return gpu.bdf == bdf; });
        if (there == gpus.end()) unknown.push_back(bdf);
    }
    context.check("offered_devices_are_on_pci", offered.size(), unknown.size(), listed(unknown));
    for (const char *mask : kMasks) {
        if (!std::getenv(mask)) continue;
        context.skipped("all_bound_devices", std::string(mask) + " is set");
        vendors.clear();
    }
    std::uint64_t bound = 0;
    for (const Vendor *vendor : vendors) {
        for (const PciGpu &gpu : gpus) {
            const auto &drivers = vendor->drivers;
            if (gpu.vendor != vendor->id || std::find(drivers.begin(), drivers.end(), gpu.driver) == drivers.end()) {
                continue;
            }
            ++bound;
            if (!offered.count(gpu.bdf)) missing.push_back(gpu.bdf);
        }
    }
    if (bound > 0) context.check("bound_devices_are_offered", bound, missing.size(), listed(missing));
    for (const DeviceInfo &device : devices) {
        for (const PciGpu &gpu : gpus) {
            if (gpu.bdf == device.bdf) compare(context, device, gpu);
        }
    }
}

void enumerate(Context &context) {
    context.phase("enumerate");
    const double before = monotonic_seconds();
    const std::vector<DeviceInfo> first = context.backend.enumerate();
    const double init = monotonic_seconds() - before;

    std::uint64_t incomplete = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
        const DeviceInfo &device = first[i];
        incomplete += device.name.empty() || device.driver.empty() || device.api_version.empty() ||
                      device.mem_bytes == 0 || device.compute_units == 0;
    }
    // The kind of the records that follow is that of the last device reported: GPUs come last, if there are any.
    for (bool pass : {false, true}) {
        for (std::size_t i = 0; i < first.size(); ++i) {
            if ((first[i].kind == "gpu") == pass) context.report(first[i], i);
        }
    }
    context.check("devices_found", 1, first.empty() ? 1 : 0, std::to_string(first.size()) + " devices");
    if (first.empty()) return;
    context.check("descriptions_complete", first.size(), incomplete);

    context.phase("enumerate again");
    const std::vector<DeviceInfo> second = context.backend.enumerate();
    std::uint64_t different = first.size() != second.size();
    for (std::size_t i = 0; i < first.size() && i < second.size(); ++i) different += first[i] != second[i];
    context.check("enumerations_agree", first.size(), different,
                  different ? "first " + std::to_string(first.size()) + " devices, then " +
                                  std::to_string(second.size()) + ", or other descriptions"
                            : "");
    context.phase("compare with PCI");
    against_the_kernel(context, first);
    context.metric("init_time", "s", "lower", {init});
}

GT_TEST("enumerate", enumerate);

}  // namespace
