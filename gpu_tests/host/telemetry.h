// The state of a device beside each number: clocks, temperature, power, link. Read from the driver's management library
// or from sysfs, never set.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace gt {

/// One look at a device. 0 or empty: not known.
struct DeviceState {
    double clock_hz = 0.0;         // of the compute units
    double memory_clock_hz = 0.0;
    double temperature = 0.0;      // degrees Celsius
    double power = 0.0;            // watts
    std::string throttle;          // reasons that hold the clock back, comma-separated; "none"; empty: not known
    std::uint32_t link_width = 0;  // PCIe lanes now
    double link_rate = 0.0;        // transfers a second and lane now: 16e9 for PCIe 4.0
    std::uint64_t bar_bytes = 0;   // of the largest memory window (BAR)
};

/// What a PCIe link of this width and rate can carry in one direction, in bytes a second; 0 when it is not known.
double link_bandwidth(std::uint32_t width, double rate);

class Telemetry {
  public:
    virtual ~Telemetry() = default;
    virtual DeviceState look() = 0;
};

/// For the device with this PCI address (0000:01:00.0) under /sys; what neither the management library nor sysfs tells
/// stays unknown. `kind` is the device's: a CPU runtime has no state to look at.
std::unique_ptr<Telemetry> telemetry_of(const std::string &bdf, const std::string &vendor, const std::string &kind);
std::unique_ptr<Telemetry> no_telemetry();

}  // namespace gt
