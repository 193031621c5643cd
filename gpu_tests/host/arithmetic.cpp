#include "arithmetic.h"

#include <algorithm>

#include "roofline.h"

namespace gt {

Roof arithmetic_roof(Context &context, Number number, Engine engine) {
    const Properties properties = context.backend.properties();
    const DeviceInfo &device = context.device();
    const Rates *rates = context.kind() == "cpu-runtime" ? nullptr : rates_of(properties.architecture);
    if (rates == nullptr) return {};
    double each = 0.0, clock = properties.clock_hz;
    if (engine == Engine::kMatrix) {
        each = matrix_rate(*rates, number, device.name);
        clock = matrix_clock(number, device.name, properties.clock_hz);
    } else if (number == Number::kFp64 || number == Number::kFp32) {
        // The others depend on what the compiler makes of them.
        each = number == Number::kFp64 ? rates->fp64 : rates->fp32;
    }
    const double per_clock = 2.0 * each * counted_units(context, *rates);
    Roof roof;
    roof.at_clock = per_clock * context.telemetry().look().clock_hz;
    // A device may be clocked higher than its data sheet says.
    roof.value = std::max(per_clock * clock, roof.at_clock);
    roof.source = "datasheet:" + std::string(rates->architecture) + "*units*clock";
    return roof.value > 0.0 ? roof : Roof{};
}

}  // namespace gt
