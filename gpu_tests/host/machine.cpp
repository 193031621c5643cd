#include "machine.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "child.h"

namespace gt {
namespace {

constexpr double kPatience = 120.0;  // seconds for a process of our own: it ends a wait, it measures nothing

std::string link_name(const std::string &path) {
    char buffer[PATH_MAX];
    const ssize_t n = ::readlink(path.c_str(), buffer, sizeof buffer);
    if (n <= 0) return "";
    const std::string all(buffer, static_cast<std::size_t>(n));
    return all.substr(all.rfind('/') + 1);
}

std::vector<std::string> names_in(const std::string &folder) {
    std::vector<std::string> out;
    DIR *entries = ::opendir(folder.c_str());
    if (!entries) return out;
    while (const dirent *entry = ::readdir(entries)) {
        if (entry->d_name[0] != '.') out.push_back(entry->d_name);
    }
    ::closedir(entries);
    std::sort(out.begin(), out.end());
    return out;
}

/// 0000:01:00.0
bool is_address(const std::string &name) {
    return name.size() == 12 && name[4] == ':' && name[7] == ':' && name[10] == '.';
}

/// A module behind all that use it, each once.
void users_first(const std::string &root, const std::string &module, std::vector<std::string> &order) {
    for (const std::string &user : names_in(root + "/module/" + module + "/holders")) users_first(root, user, order);
    if (std::find(order.begin(), order.end(), module) == order.end()) order.push_back(module);
}

void must_drive_nothing_else(const OnPci &device, const std::string &driver, const std::string &module) {
    for (const std::string &name : names_in(device.root + "/bus/pci/drivers/" + driver)) {
        if (!is_address(name) || name == device.bdf) continue;
        throw Inapplicable("the module " + module + " drives " + name + ", too");
    }
}

}  // namespace

std::string line_of_file(const std::string &path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::string write_word(const std::string &path, const std::string &word) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file < 0) return path + ": " + std::strerror(errno);
    const ssize_t written = ::write(file, word.data(), word.size());
    const int why = errno;
    ::close(file);
    return written == static_cast<ssize_t>(word.size()) ? "" : path + ": " + std::strerror(why);
}

void must_be_writable(const std::string &path, const std::string &what) {
    if (::access(path.c_str(), F_OK) != 0) throw Inapplicable("the kernel offers no " + what + " (" + path + ")");
    if (::access(path.c_str(), W_OK) != 0) throw Inapplicable(path + " may not be written: this takes root");
}

bool describes(Context &context) {
    if (context.argument("role") != "describe") return false;
    context.open_device();
    context.check("opened", 1, 0);
    return true;
}

bool computes(Context &context, const std::string &name) {
    std::string story;
    const bool passed = canary(context, kPatience, &story).passed();
    context.check(name, 1, !passed, story);
    return passed;
}

OnPci device_on_pci(Context &context) {
    context.phase("ask for the device");
    Child child(own_argv(context.options, context.options.test, 1.0, kPatience, {"role=describe"}));
    child.wait(kPatience);
    DeviceInfo info;
    info.kind = child.text("device", "kind");
    if (info.kind.empty()) {
        if (child.text("result", "status") == "skip") throw Unavailable(child.text("result", "reason"));
        throw ApiFailure("no device is opened: " + child.story(), Cause::kNoDevice);
    }
    info.name = child.text("device", "name");
    info.vendor = child.text("device", "vendor");
    info.driver = child.text("device", "driver");
    info.api_version = child.text("device", "api");
    info.platform = child.text("device", "platform");
    info.bdf = child.text("device", "bdf");
    info.uuid = child.text("device", "uuid");
    info.mem_bytes = static_cast<std::uint64_t>(child.number("device", "mem_bytes"));
    info.compute_units = static_cast<std::uint32_t>(child.number("device", "compute_units"));
    context.report(info, static_cast<std::size_t>(child.number("device", "index")));
    context.check("describes_itself", 1, !child.wait(0.0).passed(), child.story());

    OnPci device;
    device.root = sysfs_root();
    device.bdf = info.bdf;
    if (!is_address(device.bdf)) throw Inapplicable("the driver tells no PCI address of the device");
    device.folder = device.root + "/bus/pci/devices/" + device.bdf;
    // A simulated device says that it is somewhere; the machine's own device there is not it.
    const bool simulated = info.kind != "gpu" && device.root == "/sys";
    if (simulated) throw Inapplicable("a device of kind " + info.kind + " is not on PCI");
    const bool there = ::access(device.folder.c_str(), F_OK) == 0;
    if (!there) throw Inapplicable("there is no PCI device " + device.bdf + " here");
    device.driver = link_name(device.folder + "/driver");
    device.module = link_name(device.folder + "/driver/module");
    if (!device.module.empty()) users_first(device.root, device.module, device.order);
    return device;
}

void must_be_alone(const OnPci &device) {
    must_drive_nothing_else(device, device.driver, device.module);
    for (const std::string &module : device.order) {
        const std::string folder = device.root + "/module/" + module;
        for (const std::string &name : names_in(folder + "/drivers")) {
            if (name.compare(0, 4, "pci:") == 0) must_drive_nothing_else(device, name.substr(4), module);
        }
        // Each module that uses it holds one reference; who else does is a process, a console, another driver.
        const long users = static_cast<long>(names_in(folder + "/holders").size());
        const long count = std::strtol(line_of_file(folder + "/refcnt").c_str(), nullptr, 10);
        if (count > users) {
            throw Inapplicable("the module " + module + " is in use (" + std::to_string(count - users) +
                               " references beside those of other modules): stop what uses the device");
        }
    }
}

bool bound_again(const OnPci &device, double seconds) {
    const double until = monotonic_seconds() + seconds;
    while (link_name(device.folder + "/driver") != device.driver) {
        if (monotonic_seconds() >= until) return false;
        ::usleep(50000);
    }
    return true;
}

}  // namespace gt
