#include "pci.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace gt {
namespace {

std::string line_of(const std::string &path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

/// The last part of what a symbolic link points to; empty when there is none.
std::string target(const std::string &path) {
    char buffer[PATH_MAX];
    const ssize_t n = ::readlink(path.c_str(), buffer, sizeof buffer);
    if (n <= 0) return "";
    const std::string all(buffer, static_cast<std::size_t>(n));
    return all.substr(all.rfind('/') + 1);
}

PciLink link_of(const std::string &device, const char *which) {
    PciLink link;
    link.width = static_cast<std::uint32_t>(
        std::strtoul(line_of(device + "/" + which + "_link_width").c_str(), nullptr, 10));
    link.rate = std::strtod(line_of(device + "/" + which + "_link_speed").c_str(), nullptr) * 1e9;  // "16.0 GT/s PCIe"
    return link;
}

double speed(const PciLink &link) { return link.width * link.rate; }

/// A number of a node of the topology: lines of a name and a number.
unsigned long long property(const std::string &path, const std::string &wanted) {
    std::ifstream file(path);
    std::string name;
    for (unsigned long long value; file >> name >> value;) {
        if (name == wanted) return value;
    }
    return 0;
}

}  // namespace

std::string sysfs_root() {
    const char *planted = std::getenv("GT_SYSFS");
    return planted && *planted ? planted : "/sys";
}

PciGpu pci_device(const std::string &root, const std::string &bdf) {
    const std::string device = root + "/bus/pci/devices/" + bdf;
    PciGpu gpu;
    gpu.bdf = bdf;
    gpu.vendor = static_cast<std::uint32_t>(std::strtoul(line_of(device + "/vendor").c_str(), nullptr, 16));
    gpu.driver = target(device + "/driver");
    gpu.driver_version = line_of(device + "/driver/module/version");
    gpu.memory = std::strtoull(line_of(device + "/mem_info_vram_total").c_str(), nullptr, 10);
    gpu.link = link_of(device, "current");
    gpu.possible = link_of(device, "max");
    if (char *real = ::realpath(device.c_str(), nullptr)) {
        const PciLink port = link_of(std::string(real) + "/..", "max");
        std::free(real);
        if (speed(port) > 0.0) {
            gpu.possible.width = std::min(gpu.possible.width, port.width);
            gpu.possible.rate = std::min(gpu.possible.rate, port.rate);
        }
    }
    if (speed(gpu.possible) < speed(gpu.link)) gpu.possible = gpu.link;
    return gpu;
}

std::vector<PciGpu> pci_gpus(const std::string &root) {
    std::vector<PciGpu> out;
    const std::string folder = root + "/bus/pci/devices";
    DIR *entries = ::opendir(folder.c_str());
    if (!entries) return out;
    while (const dirent *entry = ::readdir(entries)) {
        const std::string bdf = entry->d_name;
        if (bdf[0] == '.') continue;
        const unsigned long kind = std::strtoul(line_of(folder + "/" + bdf + "/class").c_str(), nullptr, 16) >> 8;
        // Display controllers (03xx) and processing accelerators (1200).
        if (kind >> 8 == 0x03 || kind == 0x1200) out.push_back(pci_device(root, bdf));
    }
    ::closedir(entries);
    std::sort(out.begin(), out.end(), [](const PciGpu &a, const PciGpu &b) { return a.bdf < b.bdf; });
    return out;
}

std::uint32_t kfd_compute_units(const std::string &root, const std::string &bdf) {
    unsigned domain = 0, bus = 0, device = 0, function = 0;
    if (std::sscanf(bdf.c_str(), "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4) return 0;
    const unsigned location = bus << 8 | device << 3 | function;
    const std::string folder = root + "/class/kfd/kfd/topology/nodes";
    DIR *entries = ::opendir(folder.c_str());
    if (!entries) return 0;
    std::uint32_t units = 0;
    while (const dirent *entry = ::readdir(entries)) {
        const std::string node = folder + "/" + entry->d_name + "/properties";
        const unsigned long long lanes = property(node, "simd_count"), each = property(node, "simd_per_cu");
        if (each == 0 || property(node, "location_id") != location || property(node, "domain") != domain) continue;
        units = static_cast<std::uint32_t>(lanes / each);
    }
    ::closedir(entries);
    return units;
}

}  // namespace gt
