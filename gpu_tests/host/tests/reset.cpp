// The device is reset by the kernel while nobody has it open: the next process must compute.
#include <string>

#include "../child.h"
#include "../machine.h"

namespace {

using namespace gt;

void reset(Context &context) {
    if (describes(context)) return;
    const OnPci device = device_on_pci(context);
    const std::string file = device.folder + "/reset";
    must_be_writable(file, "reset of this device");
    if (!computes(context, "computes_before")) return;
    // The kernel resets this function alone, or refuses; but who has it open would lose what it has there.
    must_be_alone(device);
    context.phase("reset");
    const double before = monotonic_seconds();
    const std::string trouble = write_word(file, "1");
    const double took = monotonic_seconds() - before;
    std::string methods = line_of_file(device.folder + "/reset_method");
    if (methods.empty()) methods = "not told";
    context.check("resets", 1, !trouble.empty(), trouble.empty() ? "methods: " + methods : trouble);
    if (!trouble.empty()) return;
    if (!computes(context, "computes_after")) return;
    context.metric("reset_time", "s", "lower", {took});
}

GT_TEST("reset", reset);

}  // namespace
