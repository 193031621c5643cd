// What the kernel knows of the GPUs on PCI, whatever a compute API says. Sources: the kernel's
// Documentation/ABI/testing/sysfs-bus-pci and, for amdgpu's memory, Documentation/gpu/amdgpu/driver-misc.rst.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gt {

struct PciLink {
    std::uint32_t width = 0;  // lanes
    double rate = 0.0;        // transfers a second and lane
};

/// A display controller or processing accelerator. Empty or 0: not told.
struct PciGpu {
    std::string bdf;             // 0000:01:00.0
    std::uint32_t vendor = 0;    // 0x10de NVIDIA, 0x1002 AMD, 0x8086 Intel
    std::string driver;          // the kernel's that is bound to it
    std::string driver_version;  // of that driver's module, if it has one
    std::uint64_t memory = 0;    // bytes of its own
    PciLink link;                // as it runs now
    PciLink possible;            // what both ends of the link can do
};

/// Where sysfs is mounted: /sys, or what GT_SYSFS names.
std::string sysfs_root();

std::vector<PciGpu> pci_gpus(const std::string &root);

/// One device, whatever it is. A link that is faster than its port says is as fast as it is: in a guest the port above
/// a device that is passed through is not the real one.
PciGpu pci_device(const std::string &root, const std::string &bdf);

/// The compute units of an AMD GPU by its kernel driver's topology, `simd_count` over `simd_per_cu`; 0: not told. The
/// APIs count those of RDNA in ones or in pairs (work-group processors), the kernel always in ones.
std::uint32_t kfd_compute_units(const std::string &root, const std::string &bdf);

}  // namespace gt
