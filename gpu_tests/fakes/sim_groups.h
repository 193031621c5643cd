// Launches: groups of items spread over threads.
#pragma once

#include <cstdint>
#include <vector>

#include "sim_kernel.h"

namespace gt_sim {

struct Launch {
    const Kernel *kernel = nullptr;
    std::uint32_t groups = 0, group_size = 0;
    std::vector<Slot> arguments;
};

/// Run it on this thread, with the help of others where it is large; return a Status.
int run(const Launch &launch);
/// From now on, accesses that fault move managed memory, or end the launch that made them.
void catch_faults();

}  // namespace gt_sim
