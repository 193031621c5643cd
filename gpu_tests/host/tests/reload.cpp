// The module that drives the device is removed and loaded again, with all that use it: after
// each time, a new process must compute.
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "../child.h"
#include "../machine.h"

namespace {

using namespace gt;

constexpr int kReloads = 5;
constexpr double kPatience = 120.0;  // seconds for a program: it ends a wait, it measures nothing
constexpr double kBinding = 30.0;    // seconds for a driver to find its device again

/// Run a program of the system. Returns what went wrong; empty: nothing.
std::string program(const std::vector<std::string> &argv) {
    Child child(argv);
    if (child.wait(kPatience).passed()) return "";
    std::string words;
    for (const std::string &word : argv) words += word + " ";
    return words + "- " + child.story();
}

void reload(Context &context) {
    if (describes(context)) return;
    const OnPci device = device_on_pci(context);
    if (device.driver.empty()) throw Inapplicable("no driver of the kernel is bound to " + device.bdf);
    if (device.module.empty() || ::access((device.root + "/module/" + device.module + "/refcnt").c_str(), F_OK) != 0) {
        throw Inapplicable("the driver " + device.driver + " is no module: it is built into the kernel");
    }
    const bool may = ::access((device.root + "/module/" + device.module).c_str(), W_OK) == 0;
    if (!may) throw Inapplicable("a module is removed by root only");
    if (!computes(context, "computes_before")) return;
    must_be_alone(device);
    // A shell of another machine need not look where the system's own programs are.
    const char *path = ::getenv("PATH");
    ::setenv("PATH", ((path ? std::string(path) + ":" : "") + "/usr/sbin:/sbin:/usr/bin:/bin").c_str(), 1);
    std::vector<double> times;
    for (int round = 1; round <= kReloads; ++round) {
        context.phase("remove and load modules");
        const std::string number = "_" + std::to_string(round);
        const double before = monotonic_seconds();
        std::string removing, loading;
        for (const std::string &module : device.order) {
            if (removing.empty()) removing = program({"rmmod", module});
        }
        // Also after a removal that went wrong halfway: the machine gets its modules back.
        for (auto module = device.order.rbegin(); module != device.order.rend(); ++module) {
            if (loading.empty()) loading = program({"modprobe", *module});
        }
        times.push_back(monotonic_seconds() - before);
        context.check("removes" + number, 1, !removing.empty(), removing);
        context.check("loads" + number, 1, !loading.empty(), loading);
        const bool bound = loading.empty() && bound_again(device, kBinding);
        context.check("bound_again" + number, 1, !bound, bound ? "" : device.bdf + " has no driver " + device.driver);
        if (!removing.empty() || !bound) return;
        if (!computes(context, "computes_after" + number)) return;
    }
    context.metric("reload_time", "s", "lower", times);
}

GT_TEST("reload", reload);

}  // namespace
