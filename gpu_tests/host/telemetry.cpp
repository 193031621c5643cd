#include "telemetry.h"

#include <dirent.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>

#include "telemetry_nvml.h"

namespace gt {
namespace {

std::string first_line(const std::string &path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

double number(const std::string &path) { return std::strtod(first_line(path).c_str(), nullptr); }

/// What the kernel tells of a PCI device, whatever its driver.
class Sysfs : public Telemetry {
  public:
    explicit Sysfs(const std::string &bdf) : device_("/sys/bus/pci/devices/" + bdf) {
        const std::string monitors = device_ + "/hwmon";
        if (DIR *folder = ::opendir(monitors.c_str())) {
            while (const dirent *entry = ::readdir(folder)) {
                if (std::string(entry->d_name).compare(0, 5, "hwmon") == 0) monitor_ = monitors + "/" + entry->d_name;
            }
            ::closedir(folder);
        }
    }

    DeviceState look() override {
        DeviceState state;
        state.link_width = static_cast<std::uint32_t>(number(device_ + "/current_link_width"));
        state.link_rate = number(device_ + "/current_link_speed") * 1e9;  // "16.0 GT/s PCIe"
        state.bar_bytes = largest_window();
        if (!monitor_.empty()) {
            // Units of Documentation/hwmon/sysfs-interface: millidegrees, microwatts, hertz.
            state.temperature = number(monitor_ + "/temp1_input") * 1e-3;
            state.power = std::max(number(monitor_ + "/power1_average"), number(monitor_ + "/power1_input")) * 1e-6;
            state.clock_hz = number(monitor_ + "/freq1_input");         // amdgpu: sclk
            state.memory_clock_hz = number(monitor_ + "/freq2_input");  // amdgpu: mclk
        }
        return state;
    }

  private:
    std::uint64_t largest_window() const {
        std::ifstream file(device_ + "/resource");
        std::uint64_t largest = 0;
        std::string line;
        for (int bar = 0; bar < 6 && std::getline(file, line); ++bar) {
            char *rest = nullptr;
            const std::uint64_t start = std::strtoull(line.c_str(), &rest, 16);
            const std::uint64_t end = std::strtoull(rest, nullptr, 16);
            if (end > start) largest = std::max(largest, end - start + 1);
        }
        return largest;
    }

    std::string device_, monitor_;
};

class Nothing final : public Telemetry {
    DeviceState look() override { return {}; }
};

}  // namespace

double link_bandwidth(std::uint32_t width, double rate) {
    // PCIe 1 and 2 spend 2 of 10 bits on their code, 3 to 5 spend 2 of 130, 6 and later 20 of 256 bytes of a flit.
    const double payload = rate <= 5.0e9 ? 0.8 : rate <= 32.0e9 ? 128.0 / 130.0 : 236.0 / 256.0;
    return width * rate * payload / 8.0;
}

std::unique_ptr<Telemetry> no_telemetry() { return std::make_unique<Nothing>(); }

std::unique_ptr<Telemetry> telemetry_of(const std::string &bdf, const std::string &vendor, const std::string &kind) {
    if (bdf.empty() || kind == "cpu-runtime") return no_telemetry();
    auto sysfs = std::make_unique<Sysfs>(bdf);
    if (vendor.find("NVIDIA") == std::string::npos) return sysfs;
    return with_nvml(bdf, std::move(sysfs));
}

}  // namespace gt
