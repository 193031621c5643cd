// A process that watches another one, for the test of host/child.h: `child_check WHAT ARGUMENT...` starts the program
// that the arguments name, does to it what WHAT says, and prints how that ended.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "host/child.h"

namespace {

/// The most memory that this program held; getrusage(2) would count what the process was before exec.
double peak_mebibytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.compare(0, 6, "VmHWM:") == 0) return std::stod(line.substr(6)) / 1024.0;
    }
    return 0.0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) return 64;
    const std::string what = argv[1];
    gt::Child child(std::vector<std::string>(argv + 2, argv + argc));
    if (what == "said") std::printf("said %d\n", child.said("ready", 10.0));
    if (what == "release") child.release();
    if (what == "terminate") {
        if (!child.said("ready", 10.0)) return 65;
        child.signal(15);
    }
    const gt::Ended &ended = what == "leave"   ? child.kill()
                             : what == "short" ? child.wait(0.5)
                                               : child.wait(what == "terminate" ? 1.0 : 30.0);
    std::printf("%s\n", child.story().c_str());
    std::printf("status %d signal %d timed_out %d stuck %d passed %d\n", ended.exit_status, ended.signal,
                ended.timed_out, ended.stuck, ended.passed());
    std::printf("seconds %.3f records %zu mebibytes %.0f\n", ended.seconds, child.records().size(), peak_mebibytes());
    return 0;
}
