// What the parts of the simulated GPU know of each other.
#pragma once


#include <cstdint>

#include "sim.h"

namespace gt_sim {

/// Take from (or, negative, give back to) a device's free memory.
void charge(int device, std::int64_t bytes);
void release_all_of(Context *context);

}  // namespace gt_sim
