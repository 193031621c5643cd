// Managed memory of the simulated GPU: blocks that lie either in the device's memory, as far as it goes, or in the
// host's, and move by page faults: to the device when a kernel touches them, back when the host does or when others
// need the room.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "sim.h"

namespace gt_sim {

/// Managed memory of `mapped` bytes, whole pages, with this place in the device's file; nullptr: there is no memory.
char *map_managed(int device, int file, off_t offset, std::size_t mapped);
/// Forget it; its address space is still the caller's.
void unmap_managed(const char *memory);
/// How much of it lies in the device's memory.
std::uint64_t resident(int device);
/// Send blocks to the host until the rest has room in the device's memory.
void evict_beyond(int device);
/// Let the next access to each block fault again, so that it is seen who touches it.
void unmap_blocks();
/// Move what lies in these bytes.
void migrate(Address address, std::size_t bytes, bool to_device);
/// Resolve a fault at this address. False: it is nobody's managed memory.
bool page_in(const void *address, bool kernel);

}  // namespace gt_sim
