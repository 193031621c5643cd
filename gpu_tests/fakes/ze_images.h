// Device code as Intel's driver is handed it: SPIR-V, and the binaries that ocloc makes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gt_sim {

constexpr std::uint32_t kFamilyDg2 = 1270;  // the product family in the notes of an Arc's binaries
constexpr std::uint32_t kCoreXeHpg = 3079;  // its core in the header of the older format

/// The entry points of a SPIR-V module; false when it is none.
bool kernels_of_spirv(const std::string &code, std::vector<std::string> *names);
/// The kernels of a binary for this product family (zebin, an ELF of Intel's machine); false when it is another one.
bool kernels_of_zebin(const std::string &code, std::uint32_t family, std::vector<std::string> *names);
/// The same of the older format (patchtokens), which names a core and not a product.
bool kernels_of_patchtokens(const std::string &code, std::uint32_t core, std::vector<std::string> *names);
/// A binary that holds these names, and no code.
std::string zebin_of(const std::vector<std::string> &names, std::uint32_t family);

}  // namespace gt_sim
