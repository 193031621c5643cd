// The faults that the fake drivers inject, one list for all of them. GT_FAKE_FAULT names the one of this process.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>

namespace gt_fake {

/// The fakes that can inject a fault. kSim: CUDA, HIP and Level Zero stand on the same simulated GPU.
enum Fake : unsigned { kOpenCl = 1, kCuda = 2, kHip = 4, kZe = 8, kNvml = 16 };
constexpr unsigned kSim = kCuda | kHip | kZe, kAll = kOpenCl | kSim;

struct Fault {
    const char *name;
    unsigned fakes;
};

constexpr Fault kFaults[] = {
    // data that arrives wrong
    {"bitflip", kAll},
    {"displaced", kAll},
    {"swapped", kAll},
    {"nan", kAll},
    {"stale_read", kAll},
    {"lost_write", kAll},
    {"short_copy", kSim},
    // launches that do something else
    {"lost_launch", kAll},
    {"lost_some", kAll},
    {"short", kAll},
    {"last_item", kAll},
    {"overrun", kAll},
    {"launch_error", kAll},
    {"build_error", kAll},
    {"accepts_damaged", kAll},
    {"lost_atomic", kSim},      // one atomic addition of 64 does nothing
    // compilers that make other code of a kernel: sums with few digits, the wrong one of two strides
    {"low_precision", kAll},
    {"wrong_stride", kOpenCl},
    // a vendor's BLAS that keeps sums in few digits, or lays the product down by the wrong dimension
    {"blas_low_precision", kCuda | kHip},
    {"blas_transposed", kCuda | kHip},
    // order that is not kept
    {"lost_event", kSim},       // counts as reached when it is recorded
    {"lost_edge", kAll},        // a queue does not wait for another's event
    {"lost_call", kOpenCl | kCuda | kHip},
    {"lost_node", kSim},  // one of a graph's
    // memory
    {"leak", kAll},
    {"no_oom", kAll},             // memory is promised that is not there
    {"aliased", kAll},            // two addresses for the same memory
    {"leak_context", kAll},       // what a context held stays when it is closed
    {"ipc_stale", kSim},  // another process sees what was, not what is
    {"managed_stale", kAll},      // a page of managed memory does not come back from the device
    {"lost_eviction", kCuda | kHip},   // part of a page does not arrive on the host when the device is full
    {"stuck_eviction", kCuda | kHip},  // a page that must go never does
    // a kernel's fault
    {"swallowed_error", kAll},    // a launch that failed is reported as done
    {"wrong_error", kSim},        // it is reported as an error that says nothing
    {"forgotten_error", kCuda},   // it is reported once, and the broken context goes on
    {"spreading_fault", kSim},    // it breaks the contexts of every other process as well
    {"lasting_fault", kSim},      // no process gets a context afterwards
    // what the kernel says, while the test's own results are right: the watch around the test has to notice
    {"xid", kSim},  // an Xid, or what another driver has in its place, in the file that GT_FAKE_KMSG names
    // what kernels print
    {"silent_printf", kCuda | kZe},
    {"torn_printf", kCuda | kZe},   // of a full buffer's oldest line a part is left
    {"fatal_printf", kCuda | kZe},  // a full buffer ends the launch in an error
    // clocks that lie
    {"timer_zero", kAll},
    {"timer_1ns", kAll},
    {"timer_fast", kAll},
    {"timer_slow", kAll},
    // processes that do not come to their end
    {"hang", kAll},
    {"hang_in_sync", kSim},
    {"crash", kAll},
    {"hang_at_init", kAll},
    {"crash_at_init", kAll},
    // devices that are not there, or not the same twice
    {"no_platform", kAll},
    {"no_device", kAll},
    {"vanishing_device", kAll},
    {"renamed_device", kAll},
    {"wrong_bdf", kSim},
    {"missing_device", kSim},  // the second one
};

/// What is no failure: a device that is held back computes as well. But it must stand beside every rate.
constexpr Fault kRecorded[] = {
    {"throttled", kNvml},
};

/// The fault that is injected into this process; empty when none is. A name that is not in the list ends the process.
inline const std::string &fault() {
    static const std::string chosen = [] {
        const char *name = std::getenv("GT_FAKE_FAULT");
        const std::string wanted = name ? name : "";
        const auto named = [&](const Fault &fault) { return wanted == fault.name; };
        const bool known = std::any_of(std::begin(kFaults), std::end(kFaults), named) ||
                           std::any_of(std::begin(kRecorded), std::end(kRecorded), named);
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
