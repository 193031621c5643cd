// The part of NVIDIA's management library (nvml.h) that reads the state of a device. Nothing in it sets anything.
#pragma once

namespace nvml {

enum Clock : unsigned { kClockSm = 1, kClockMemory = 2 };
constexpr unsigned kSensorGpu = 0;

struct Bar1 {
    unsigned long long total, free, used;
};

/// (symbol, parameters); all return nvmlReturn_t.
#define GT_NVML_FUNCTIONS(X)                                                            \
    X(nvmlInit_v2, ())                                                                  \
    X(nvmlDeviceGetHandleByPciBusId_v2, (const char *bdf, void **device))               \
    X(nvmlDeviceGetClockInfo, (void *device, unsigned clock, unsigned *megahertz))      \
    X(nvmlDeviceGetTemperature, (void *device, unsigned sensor, unsigned *celsius))     \
    X(nvmlDeviceGetPowerUsage, (void *device, unsigned *milliwatts))                    \
    X(nvmlDeviceGetCurrentClocksThrottleReasons, (void *device, unsigned long long *reasons)) \
    X(nvmlDeviceGetCurrPcieLinkGeneration, (void *device, unsigned *generation))        \
    X(nvmlDeviceGetCurrPcieLinkWidth, (void *device, unsigned *lanes))                  \
    X(nvmlDeviceGetBAR1MemoryInfo, (void *device, Bar1 *memory))

}  // namespace nvml
