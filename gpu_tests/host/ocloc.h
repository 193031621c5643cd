// Intel's offline compiler as a library of the guest: how source reaches Level Zero, which has no compiler of its own.
#pragma once

#include <cstdint>
#include <string>

namespace gt {

/// Whether libocloc.so is installed.
bool ocloc_there();
/// Compile OpenCL C for the GPU with this PCI device id to SPIR-V: the driver takes it from there, whatever format its
/// binaries have. Throws ApiFailure (kBadImage) with the compiler's log, Inapplicable when libocloc.so is absent.
std::string ocloc_compile(const std::string &source, std::uint32_t device);

}  // namespace gt
