// Device code as a driver is handed it: which form it has, whether it fits the device, which kernels are in it.
#pragma once

#include <string>
#include <vector>

#include "sim.h"

namespace gt_sim {

struct Module {
    std::string content;
    bool text = false;  // PTX

    bool has(const std::string &kernel) const;
};

/// Take a cubin, a fatbin or PTX for a device of this compute capability, with a driver that knows PTX up to `isa`
/// (major * 10 + minor). The bytes' number is in them, as for the real call.
Status load_cuda(const void *image, int capability, int isa, Module *module);
/// Take an AMD code object for the device with this number in its ELF flags (EF_AMDGPU_MACH).
Status load_amd(const void *image, unsigned machine, Module *module);

/// The kernels that a source defines: the known ones whose names are words of it.
std::vector<std::string> kernels_in(const std::string &source);
/// Whether every brace has its partner.
bool well_nested(const std::string &text);
/// Whether a compiler takes the source; what it says if not.
bool compiles(const std::string &source, std::string *log);
/// What a compiler makes of kernels: PTX, or a code object, with their names in it and nothing else.
std::string ptx_of(const std::vector<std::string> &names, int capability, int isa);
std::string amd_object_of(const std::vector<std::string> &names, unsigned machine);

}  // namespace gt_sim
