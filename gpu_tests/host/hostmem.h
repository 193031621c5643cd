// What this host and this process have of memory and files: for tests that look for leaks, and that must not take all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gt {

/// Bytes that could be allocated on this host without swapping (MemAvailable), or 0.
std::uint64_t host_available();
/// Bytes of this process that are in memory now.
std::uint64_t resident();
/// How many files this process has open.
std::size_t open_files();

}  // namespace gt
