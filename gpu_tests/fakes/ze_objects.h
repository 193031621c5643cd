// What the parts of the fake Level Zero know of each other.
#pragma once

#include "../host/ze_abi.h"
#include "sim.h"

namespace gt_ze {

/// The simulated GPU has one context per device; Level Zero's spans the devices of a driver.
struct Context {
    gt_sim::Context *of[gt_sim::Description::kDevices] = {};
};

struct Kernel {
    const gt_sim::Kernel *kernel;
    std::vector<gt_sim::Slot> arguments;
    std::uint32_t group = 1;
};

constexpr std::uint64_t kMaxAlloc = 512u << 20;
constexpr std::uint64_t kTimer = 1000000000;  // cycles a second
constexpr std::uint32_t kTimerBits = 36;

int index_of(ze::Object device);
bool known(ze::Object device);
/// What the calls that list something answer: how many there are, or the first of them.
ze::Result put(std::uint32_t *count, ze::Object *out, std::uint32_t have, ze::Object (*object)(std::uint32_t));
ze::Result result_of(gt_sim::Status status);
/// Make the simulated GPU's context of this device the one of the calling thread.
gt_sim::Context *enter(Context *context, int device);

}  // namespace gt_ze
