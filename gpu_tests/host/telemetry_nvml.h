// NVIDIA's management library beside sysfs.
#pragma once

#include <memory>
#include <string>

#include "telemetry.h"

namespace gt {

/// What libnvidia-ml.so.1 (or the library that GT_NVML names) tells of the device, and `below` where it tells nothing.
/// `below` itself when the library or the device is not there.
std::unique_ptr<Telemetry> with_nvml(const std::string &bdf, std::unique_ptr<Telemetry> below);

}  // namespace gt
