// A kernel without end, a kernel that traps, a kernel that writes where it may not: each in a process of its own, which gets
// the error that is documented, while another process goes on, and after which a new one computes at once.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "../child.h"
#include "../data.h"

namespace {

using namespace gt;

constexpr double kRecovery = 10.0;    // seconds after which a new process must have computed
constexpr double kUsual = 5.0;        // times what it takes before any fault, where that is longer: a slow machine
constexpr double kPatience = 60.0;    // seconds for a child to get to its fault
constexpr std::uint32_t kWords = 1024;

struct Code {
    Handle module;
    Handle out;
};

Code prepare(Context &context) {
    context.open_device();
    return {context.module("trouble"), context.backend.alloc(kWords * 4)};
}

/// The child that commits the fault. It reports the documented error as a good check; anything else is a bad one.
void offend(Context &context, const std::string &role) {
    Backend &backend = context.backend;
    const Code code = prepare(context);
    const std::vector<std::uint32_t> zeros(kWords, 0);
    backend.write(code.out, zeros.data(), kWords * 4);
    std::string said = "the driver reported no error";
    bool documented = false;
    const Handle kernel = backend.kernel(code.module, ("gt_" + role).c_str());
    context.check("ready", 1, 0);
    try {
        if (role == "beyond") {
            // Far behind everything that a driver maps; the address stays canonical.
            const std::uint64_t distance = std::uint64_t{1} << 43;
            backend.launch(kernel, kWords, 64, {Arg::u32(kWords), Arg::mem(code.out), Arg::u64(distance)});
        } else {
            backend.launch(kernel, kWords, 64, {Arg::u32(kWords), Arg::mem(code.out)});
        }
        backend.read(code.out, std::vector<std::uint32_t>(kWords).data(), kWords * 4);
    } catch (const ApiFailure &e) {
        said = e.what();
        documented = role == "beyond" ? e.cause == Cause::kIllegalAddress || e.cause == Cause::kLaunch ||
                                            e.cause == Cause::kDeviceLost
                                      : e.cause != Cause::kOther && e.cause != Cause::kOutOfMemory;
    }
    context.check("documented_error", 1, !documented, said);
}

/// A process that has nothing to do with the fault: it computes until its input ends, and every result must be right.
void stand_by(Context &context) {
    Backend &backend = context.backend;
    const Code code = prepare(context);
    const Handle kernel = backend.kernel(code.module, "gt_busy");
    Guarded out(backend, kWords, 3);
    std::uint64_t launches = 0, bad = 0;
    char byte;
    context.check("ready", 1, 0);
    ::fcntl(0, F_SETFL, O_NONBLOCK);
    do {
        const std::uint32_t seed = static_cast<std::uint32_t>(launches++);
        out.poison_all();
        backend.launch(kernel, kWords, 64,
                       {Arg::u32(kWords), Arg::mem(out.buffer()), Arg::u32(out.first()), Arg::u32(seed), Arg::u32(1)});
        const Guarded::Bad found = out.verify([&](std::uint32_t i) { return (seed ^ i) * 1664525u + 1013904223u; });
        bad += found.payload + found.canaries;
        ::usleep(10000);
        // The parent closes the pipe when it has seen enough.
    } while (::read(0, &byte, 1) != 0);
    context.check("bystander_computes", launches * kWords, bad);
}

class Recovery {
  public:
    explicit Recovery(Context &context) : context_(context) {}

    void run() {
        const DeviceInfo device = context_.open_device();
        cpu_ = device.kind == "cpu-runtime" || (device.kind == "fake" && context_.options.backend == "opencl");
        context_.backend.close();  // what happens to others must not happen to this process
        context_.phase("canary");
        std::string story;
        const Ended usual = canary(context_, kPatience, &story);
        context_.check("canary_before", 1, !usual.passed(), story);
        if (!usual.passed()) return;
        limit_ = std::max(kRecovery, kUsual * usual.seconds);
        // The faults that leave the most to clean up come last.
        std::vector<double> times;
        endless(times);
        if (context_.options.backend == "opencl") context_.skipped("trap", "OpenCL C has no assertion and no trap");
        else fault("trap", times);
        fault("beyond", times);
        if (!times.empty()) context_.metric("recovery_time", "s", "lower", times);
    }

  private:
    std::unique_ptr<Child> start(const std::string &role) {
        return std::make_unique<Child>(
            own_argv(context_.options, context_.options.test, 1.0, 4 * kPatience, {"role=" + role}));
    }

    /// Commit one fault beside a bystander, and see what is left.
    template <class Act>
    void beside(const std::string &what, std::vector<double> &times, Act act) {
        context_.phase(what.c_str());
        const std::unique_ptr<Child> bystander = start("bystander");
        const bool stands = bystander->said("ready", kPatience);
        context_.check(what + "_bystander_started", 1, !stands, stands ? "" : bystander->story());
        if (!stands) return;
        act();
        std::string story;
        const Ended after = canary(context_, limit_, &story);
        context_.check(what + "_next_process_computes", 1, !after.passed(), story);
        if (after.passed()) times.push_back(after.seconds);
        bystander->release();
        const bool unharmed = bystander->wait(limit_).passed();
        context_.check(what + "_bystander_unharmed", 1, !unharmed, bystander->story());
    }

    void endless(std::vector<double> &times) {
        beside("endless", times, [&] {
            const std::unique_ptr<Child> child = start("endless");
            const bool ready = child->said("ready", kPatience);
            ::usleep(1000000);
            const bool endless = ready && child->running();
            context_.check("endless_runs_on", 1, !endless, endless ? "" : child->story());
            const Ended &ended = child->kill();
            context_.check("endless_dies_when_killed", 1, ended.stuck, ended.stuck ? child->story() : "");
        });
    }

    void fault(const std::string &role, std::vector<double> &times) {
        beside(role, times, [&] {
            const std::unique_ptr<Child> child = start(role);
            const bool ready = child->said("ready", kPatience);
            const Ended &ended = child->wait(limit_);
            // On a processor, and in a runtime that gives up by abort, the signal is the error; to hang or to go on is not.
            const bool signalled = ended.signal != 0 && !ended.timed_out && (cpu_ || ended.signal == SIGABRT);
            const bool good = ready && (ended.passed() || signalled);
            context_.check(role + "_is_reported", 1, !good, child->story());
        });
    }

    Context &context_;
    double limit_ = kRecovery;
    bool cpu_ = false;
};

void fault_recovery(Context &context) {
    const std::string role = context.argument("role");
    if (role == "bystander") stand_by(context);
    else if (role == "endless" || role == "trap" || role == "beyond") offend(context, role);
    else if (role.empty()) Recovery(context).run();
    else throw OwnError("fault_recovery has no role " + role);
}

GT_TEST("fault_recovery", fault_recovery);

}  // namespace
