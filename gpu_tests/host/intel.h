// Which artefact's target an Intel GPU is, by its PCI device id. Families whose ids overlap are not in the list: those
// devices take SPIR-V or source. The ids are those of the kernel's include/drm/intel/pciids.h.
#pragma once

#include <cstdint>
#include <string>

namespace gt {

inline std::string intel_target(std::uint32_t device) {
    struct Range {
        std::uint32_t first, last;
        const char *target;
    };
    static constexpr Range kRanges[] = {
        {0x1902, 0x193d, "skl"},         // Skylake
        {0x8a50, 0x8a71, "icllp"},       // Ice Lake
        {0x9a40, 0x9af8, "tgllp"},       // Tiger Lake
        {0x4905, 0x4909, "dg1"},         {0x4680, 0x4693, "adl-s"},   // Alder Lake S
        {0xa780, 0xa78b, "adl-s"},       // Raptor Lake S
        {0x46a0, 0x46c3, "adl-p"},       // Alder Lake P
        {0x5690, 0x5692, "dg2-g10"},     {0x56a0, 0x56a2, "dg2-g10"}, {0x56c0, 0x56c0, "dg2-g10"},
        {0x5693, 0x5695, "dg2-g11"},     {0x56a5, 0x56a6, "dg2-g11"}, {0x56b0, 0x56b1, "dg2-g11"},
        {0x56ba, 0x56bd, "dg2-g11"},     {0x56c1, 0x56c1, "dg2-g11"}, {0x5696, 0x5697, "dg2-g12"},
        {0x56a3, 0x56a4, "dg2-g12"},     {0x56b2, 0x56b3, "dg2-g12"}, {0x0bd0, 0x0bdb, "pvc"},
        {0x6420, 0x64b0, "lnl"},         // Lunar Lake
        {0xe202, 0xe216, "bmg-g21"},     // Battlemage
    };
    for (const Range &range : kRanges) {
        if (device >= range.first && device <= range.last) return range.target;
    }
    return "";
}

}  // namespace gt
