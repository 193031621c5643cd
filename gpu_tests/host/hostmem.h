// What this host and this process have of memory and files: for tests that look for leaks, and that must not take all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace gt {

/// Bytes that could be allocated on this host without swapping (MemAvailable), or 0.
std::uint64_t host_available();
/// Bytes that this process may still take: of those, what its control groups let it (a container's limit).
std::uint64_t host_room();
/// What the control groups leave that /proc/self/cgroup (its text) names, mounted at `mount`; all ones without a limit.
std::uint64_t cgroup_room(const std::string &membership, const std::string &mount);
/// Bytes of this process that are in memory now.
std::uint64_t resident();
/// How many files this process has open.
std::size_t open_files();

}  // namespace gt
