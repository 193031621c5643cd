// The faults that the fake drivers inject, one list for all of them. GT_FAKE_FAULT names the one of this process.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>

namespace gt_fake {

constexpr const char *kFaults[] = {
    // data that arrives wrong
    "bitflip", "displaced", "swapped", "nan", "stale_read", "lost_write",
    // launches that do something else
    "lost_launch", "lost_some", "short", "last_item", "overrun", "launch_error", "build_error", "accepts_damaged",
    // compilers that make other code of a kernel: sums with few digits, the wrong one of two strides
    "low_precision", "wrong_stride",
    // queues that do not keep order
    "lost_edge", "lost_call",
    // memory that is not what was asked for: twice the same, promised without being there, not given back
    "aliased", "no_oom", "leak",
    // clocks that lie
    "timer_zero", "timer_1ns", "timer_fast", "timer_slow",
    // processes that do not come to their end
    "hang", "crash", "hang_at_init", "crash_at_init",
    // devices that are not there, or not the same twice
    "no_platform", "no_device", "vanishing_device", "renamed_device",
};

/// The fault that is injected into this process; empty when none is. A name that is not in the list ends the process.
inline const std::string &fault() {
    static const std::string chosen = [] {
        const char *name = std::getenv("GT_FAKE_FAULT");
        const std::string wanted = name ? name : "";
        const bool known = std::find(std::begin(kFaults), std::end(kFaults), wanted) != std::end(kFaults);
        if (!wanted.empty() && !known) {
            std::fprintf(stderr, "fake driver: unknown fault %s\n", wanted.c_str());
            std::abort();
        }
        return wanted;
    }();
    return chosen;
}

inline bool is(const char *name) { return fault() == name; }

}  // namespace gt_fake
