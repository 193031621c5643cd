// What the parts of the simulated GPU know of each other.
#pragma once

#include <cstdint>

#include "sim.h"

namespace gt_sim {

/// Take from (or, negative, give back to) a device's free memory.
void charge(int device, std::int64_t bytes);
void release_all_of(Context *context);
/// The device's memory that managed memory can lie in.
std::uint64_t room(int device);
int anonymous_file();
/// Address space between pages that nobody may touch; nullptr: there is none.
char *reserve(std::size_t mapped);

}  // namespace gt_sim
