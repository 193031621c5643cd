// Which devices the driver offers, and whether it says the same twice.
#include "../test.h"

namespace {

using namespace gt;

void enumerate(Context &context) {
    context.phase("enumerate");
    const double before = monotonic_seconds();
    const std::vector<DeviceInfo> first = context.backend.enumerate();
    const double init = monotonic_seconds() - before;

    std::uint64_t incomplete = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
        const DeviceInfo &device = first[i];
        incomplete += device.name.empty() || device.driver.empty() || device.api_version.empty() ||
                      device.mem_bytes == 0 || device.compute_units == 0;
    }
    // The kind of the records that follow is that of the last device reported: GPUs come last, if there are any.
    for (bool pass : {false, true}) {
        for (std::size_t i = 0; i < first.size(); ++i) {
            if ((first[i].kind == "gpu") == pass) context.report(first[i], i);
        }
    }
    context.check("devices_found", 1, first.empty() ? 1 : 0, std::to_string(first.size()) + " devices");
    if (first.empty()) return;
    context.check("descriptions_complete", first.size(), incomplete);

    context.phase("enumerate again");
    const std::vector<DeviceInfo> second = context.backend.enumerate();
    std::uint64_t different = first.size() != second.size();
    for (std::size_t i = 0; i < first.size() && i < second.size(); ++i) different += first[i] != second[i];
    context.check("enumerations_agree", first.size(), different,
                  different ? "first " + std::to_string(first.size()) + " devices, then " +
                                  std::to_string(second.size()) + ", or other descriptions"
                            : "");
    context.metric("init_time", "s", "lower", {init});
}

GT_TEST("enumerate", enumerate);

}  // namespace
