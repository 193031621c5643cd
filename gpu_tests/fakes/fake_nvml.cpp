// libnvidia-ml.so.1 for the simulated GPU's first device: a state that never changes, and one that the fault
// "throttled" makes of it. It never belongs in a guest.
#include <cstring>

#include "../host/nvml_abi.h"
#include "faults.h"

namespace {

constexpr int kNotFound = 6;  // NVML_ERROR_NOT_FOUND

bool throttled() { return gt_fake::is("throttled"); }

}  // namespace

extern "C" {

int nvmlInit_v2() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bdf, void **device) {
    static int one;
    if (std::strcmp(bdf, "0000:f1:00.0") != 0) return kNotFound;
    return *device = &one, 0;
}
int nvmlDeviceGetClockInfo(void *, unsigned clock, unsigned *megahertz) {
    return *megahertz = clock == nvml::kClockMemory ? 2619u : throttled() ? 345u : 1980u, 0;
}
int nvmlDeviceGetTemperature(void *, unsigned, unsigned *celsius) { return *celsius = throttled() ? 93 : 41, 0; }
int nvmlDeviceGetPowerUsage(void *, unsigned *milliwatts) { return *milliwatts = 312500, 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *, unsigned long long *reasons) {
    return *reasons = throttled() ? 0x48 : 0, 0;
}
/// A link that no copy within the host's memory comes near.
int nvmlDeviceGetCurrPcieLinkGeneration(void *, unsigned *generation) { return *generation = 6, 0; }
int nvmlDeviceGetCurrPcieLinkWidth(void *, unsigned *lanes) { return *lanes = 32, 0; }
int nvmlDeviceGetBAR1MemoryInfo(void *, nvml::Bar1 *memory) {
    return *memory = {128ull << 30, 120ull << 30, 8ull << 30}, 0;
}

}  // extern "C"
