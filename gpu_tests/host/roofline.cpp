#include "roofline.h"

namespace gt {

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
    const DeviceState state = context.telemetry().look();
    Roof roof;
    roof.value = link_bandwidth(state.link_width, state.link_rate);
    roof.source = "sysfs:link_width*link_speed";
    return roof;
}

}  // namespace gt
