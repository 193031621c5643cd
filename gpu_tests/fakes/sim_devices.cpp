// Which simulated devices there are, and what they say of themselves.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "damage.h"
#include "sim.h"

namespace gt_sim {
namespace {

using gt_fake::is;

int looks = 0;

}  // namespace

int count_devices() {
    if (is("hang_at_init")) gt_fake::hang();
    if (is("crash_at_init")) gt_fake::crash();
    ++looks;
    return devices();
}

int devices() {
    if (is("no_device") || (is("vanishing_device") && looks > 1)) return 0;
    return is("missing_device") ? Description::kDevices - 1 : Description::kDevices;
}

bool renamed() { return is("renamed_device") && looks > 1; }

std::string bdf(int device) {
    char text[16];
    const int bus = Description::kBus + device + (is("wrong_bdf") ? 8 : 0);
    std::snprintf(text, sizeof text, "0000:%02x:00.0", static_cast<unsigned>(bus));
    return text;
}

std::uint64_t memory_bytes() {
    static const std::uint64_t bytes = [] {
        const char *mebibytes = std::getenv("GT_FAKE_MEMORY");
        return mebibytes ? std::strtoull(mebibytes, nullptr, 10) << 20 : Description::kMemory;
    }();
    return bytes;
}

bool lacks(const char *what) {
    const char *lacking = std::getenv("GT_FAKE_LACKS");
    return lacking && std::string(lacking) == what;
}

}  // namespace gt_sim
