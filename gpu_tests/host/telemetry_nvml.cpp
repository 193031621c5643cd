#include "telemetry_nvml.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "nvml_abi.h"

namespace gt {
namespace {

using namespace nvml;

/// Each function is null where the library is too old for it.
struct Api {
#define GT_MEMBER(symbol, parameters) int(*symbol) parameters = nullptr;
    GT_NVML_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

struct Reason {
    unsigned long long bit;
    const char *name;
};
constexpr Reason kReasons[] = {
    {0x1, "idle"},         {0x2, "applications_clocks"}, {0x4, "sw_power_cap"},     {0x8, "hw_slowdown"},
    {0x10, "sync_boost"},  {0x20, "sw_thermal"},         {0x40, "hw_thermal"},      {0x80, "hw_power_brake"},
    {0x100, "display_clocks"},
};

std::string names(unsigned long long reasons) {
    std::string out;
    for (const Reason &reason : kReasons) {
        if ((reasons & reason.bit) == 0) continue;
        out += (out.empty() ? "" : ",") + std::string(reason.name);
        reasons &= ~reason.bit;
    }
    if (reasons != 0) {
        char text[24];
        std::snprintf(text, sizeof text, "0x%llx", reasons);
        out += (out.empty() ? "" : ",") + std::string(text);
    }
    return out.empty() ? "none" : out;
}

/// Transfers a second and lane of a generation of PCI Express.
double rate(unsigned generation) {
    constexpr double kRates[] = {0.0, 2.5e9, 5e9, 8e9, 16e9, 32e9, 64e9};
    return generation < sizeof kRates / sizeof kRates[0] ? kRates[generation] : 0.0;
}

class Nvml final : public Telemetry {
  public:
    Nvml(const Api &api, void *device, std::unique_ptr<Telemetry> below)
        : api_(api), device_(device), below_(std::move(below)) {}

    DeviceState look() override {
        DeviceState state = below_->look();
        unsigned value = 0;
        unsigned long long reasons = 0;
        Bar1 bar{};
        const auto ok = [&](auto *function, auto... arguments) {
            return function && function(device_, arguments...) == 0;
        };
        if (ok(api_.nvmlDeviceGetClockInfo, kClockSm, &value)) state.clock_hz = value * 1e6;
        if (ok(api_.nvmlDeviceGetClockInfo, kClockMemory, &value)) state.memory_clock_hz = value * 1e6;
        if (ok(api_.nvmlDeviceGetTemperature, kSensorGpu, &value)) state.temperature = value;
        if (ok(api_.nvmlDeviceGetPowerUsage, &value)) state.power = value * 1e-3;
        if (ok(api_.nvmlDeviceGetCurrentClocksThrottleReasons, &reasons)) state.throttle = names(reasons);
        if (ok(api_.nvmlDeviceGetCurrPcieLinkGeneration, &value)) state.link_rate = rate(value);
        if (ok(api_.nvmlDeviceGetCurrPcieLinkWidth, &value)) state.link_width = value;
        if (ok(api_.nvmlDeviceGetBAR1MemoryInfo, &bar)) state.bar_bytes = bar.total;
        return state;
    }

  private:
    Api api_;
    void *device_;
    std::unique_ptr<Telemetry> below_;
};

}  // namespace

std::unique_ptr<Telemetry> with_nvml(const std::string &bdf, std::unique_ptr<Telemetry> below) {
    const char *name = std::getenv("GT_NVML");
    void *library = ::dlopen(name ? name : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return below;
    Api api;
#define GT_LOOKUP(symbol, parameters) api.symbol = reinterpret_cast<int(*) parameters>(::dlsym(library, #symbol));
    GT_NVML_FUNCTIONS(GT_LOOKUP)
#undef GT_LOOKUP
    void *device = nullptr;
    if (!api.nvmlInit_v2 || !api.nvmlDeviceGetHandleByPciBusId_v2 || api.nvmlInit_v2() != 0) return below;
    if (api.nvmlDeviceGetHandleByPciBusId_v2(bdf.c_str(), &device) != 0) return below;
    return std::make_unique<Nvml>(api, device, std::move(below));
}

}  // namespace gt
