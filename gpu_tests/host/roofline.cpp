#include "roofline.h"

#include <algorithm>

#include "pci.h"

namespace gt {

Roof memory_roof(Context &context) {
    const Properties properties = context.backend.properties();
    Roof roof;
    if (context.kind() == "cpu-runtime") return roof;
    if (properties.memory_bandwidth > 0.0) {
        roof.value = properties.memory_bandwidth;
        roof.source = "attr:read_bandwidth";
        return roof;
    }
    if (!(properties.memory_clock_hz > 0.0) || properties.memory_bus_bits == 0) return roof;
    const double bytes = properties.memory_bus_bits / 8.0;
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

double counted_units(Context &context, const Rates &rates) {
    const std::string architecture = rates.architecture;
    const bool rdna = architecture.size() == 7 && architecture.compare(0, 4, "gfx1") == 0;
    return rdna ? kfd_compute_units(sysfs_root(), context.device().bdf) : context.device().compute_units;
}

Roof lanes_roof(Context &context, Lanes lanes) {
    const Properties properties = context.backend.properties();
    const Rates *rates = context.kind() == "cpu-runtime" ? nullptr : rates_of(properties.architecture);
    if (rates == nullptr) return {};
    const double rate = 2.0 * counted_units(context, *rates) *
                        (lanes == Lanes::kFp32   ? rates->fp32
                         : lanes == Lanes::kFp64 ? rates->fp64
                         : lanes == Lanes::kFp16 ? rates->fp16
                                                 : rates->int32);
    Roof roof;
    roof.at_clock = rate * context.telemetry().look().clock_hz;
    // A card may be clocked higher than its driver says that it can be.
    roof.value = std::max(rate * properties.clock_hz, roof.at_clock);
    roof.source = "lanes*2*units*clock";
    return roof.value > 0.0 ? roof : Roof{};
}

}  // namespace gt
