// What kernels print: a buffer of a fixed size, in which new lines take the place of the oldest, as CUDA documents it.
// It is written to standard output when somebody waits for the device.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <deque>
#include <mutex>
#include <string>

#include "faults.h"
#include "gt_cpu.h"
#include "sim.h"

namespace gt_sim {
namespace {

using gt_fake::is;

struct Printed {
    std::mutex lock;
    std::deque<std::string> lines;
    std::size_t bytes = 0;
};

Printed &printed() {
    static auto *const all = new Printed;
    return *all;
}

/// Keep a line; whether there was room for it.
bool keep(const char *line) {
    Printed &all = printed();
    const std::lock_guard<std::mutex> hold(all.lock);
    all.lines.emplace_back(line);
    all.bytes += all.lines.back().size();
    if (all.bytes <= Description::kPrintfBytes) return true;
    std::size_t over = all.bytes - Description::kPrintfBytes;
    while (over > 0) {
        std::string &oldest = all.lines.front();
        // What is left of a line that is overwritten in part is dropped, too.
        const std::size_t lost = is("torn_printf") && over < oldest.size() ? over : oldest.size();
        oldest.erase(0, lost);
        if (oldest.empty()) all.lines.pop_front();
        all.bytes -= lost;
        over -= std::min(over, lost);
    }
    return false;
}

}  // namespace

void write_printed() {
    Printed &all = printed();
    const std::lock_guard<std::mutex> hold(all.lock);
    for (const std::string &line : all.lines) std::fputs(line.c_str(), stdout);
    if (!all.lines.empty()) std::fflush(stdout);
    all.lines.clear();
    all.bytes = 0;
}

}  // namespace gt_sim

void gt_cpu_printf(const char *format, ...) {
    if (gt_fake::is("silent_printf")) return;
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (!gt_sim::keep(line) && gt_fake::is("fatal_printf")) gt_cpu_fail(gt_sim::kLaunchFailed);
}
