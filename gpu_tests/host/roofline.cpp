#include "roofline.h"

#include <algorithm>

#include "pci.h"

namespace gt {
namespace {

/// Multiply-adds in one clock of one compute unit; 0: not known, or made of several instructions.
///
/// NVIDIA, of an SM: CUDA C++ Programming Guide, table "Throughput of Native Arithmetic Instructions". AMD, of a CU: the
/// vector rates of the data sheets of MI25, MI50, MI100, MI250X and MI300X over units, clock and 2, with packed fp32
/// where there is such an instruction. RDNA is not here: its drivers count units in ones or in pairs.
struct Unit {
    const char *architecture;
    double fp32, fp64, fp16, int32;
};
constexpr Unit kUnits[] = {
    {"sm_50", 128, 4, 0, 0},    {"sm_52", 128, 4, 0, 0},    {"sm_53", 128, 4, 256, 0},  {"sm_60", 64, 32, 128, 0},
    {"sm_61", 128, 4, 2, 0},    {"sm_62", 128, 4, 256, 0},  {"sm_70", 64, 32, 128, 64}, {"sm_75", 64, 2, 128, 64},
    {"sm_80", 64, 32, 256, 64}, {"sm_86", 128, 2, 128, 64}, {"sm_89", 128, 2, 128, 64}, {"sm_90", 128, 64, 256, 64},
    {"sm_100", 128, 64, 256, 0}, {"sm_120", 128, 2, 128, 0}, {"gfx900", 64, 4, 128, 0},  {"gfx906", 64, 32, 128, 0},
    {"gfx908", 64, 32, 128, 0}, {"gfx90a", 128, 64, 128, 0}, {"gfx942", 128, 64, 0, 0},
};

}  // namespace

Roof memory_roof(Context &context) {
    const Properties properties = context.backend.properties();
    if (context.kind() == "cpu-runtime" || !(properties.memory_clock_hz > 0.0) || properties.memory_bus_bits == 0) {
        return {};
    }
    const double bytes = properties.memory_bus_bits / 8.0;
    Roof roof;
    roof.value = 2.0 * properties.memory_clock_hz * bytes;
    roof.source = "attr:2*memory_clock*bus/8";
    roof.at_clock = 2.0 * context.telemetry().look().memory_clock_hz * bytes;
    return roof;
}

Roof link_roof(Context &context) {
    // A link is slower while its device idles, or because of its slot: the roof is what both ends of it can do.
    const DeviceState state = context.telemetry().look();
    const PciLink possible = pci_device(sysfs_root(), context.device().bdf).possible;
    Roof roof;
    roof.at_clock = link_bandwidth(state.link_width, state.link_rate);
    roof.value = roof.at_clock > 0.0 ? std::max(roof.at_clock, link_bandwidth(possible.width, possible.rate)) : 0.0;
    roof.source = "sysfs:link_width*link_speed";
    return roof;
}

Roof lanes_roof(Context &context, Lanes lanes) {
    const Properties properties = context.backend.properties();
    // AMD's names carry features behind a colon, NVIDIA's may end in a letter for code that later chips do not run.
    std::string architecture = properties.architecture.substr(0, properties.architecture.find(':'));
    if (architecture.compare(0, 3, "sm_") == 0 && architecture.back() == 'a') architecture.pop_back();
    for (const Unit &unit : kUnits) {
        if (context.kind() == "cpu-runtime" || architecture != unit.architecture) continue;
        const double rate = 2.0 * context.device().compute_units *
                            (lanes == Lanes::kFp32   ? unit.fp32
                             : lanes == Lanes::kFp64 ? unit.fp64
                             : lanes == Lanes::kFp16 ? unit.fp16
                                                     : unit.int32);
        Roof roof;
        roof.at_clock = rate * context.telemetry().look().clock_hz;
        // A card may be clocked higher than its driver says that it can be.
        roof.value = std::max(rate * properties.clock_hz, roof.at_clock);
        roof.source = "lanes*2*units*clock";
        return roof;
    }
    return {};
}

}  // namespace gt
