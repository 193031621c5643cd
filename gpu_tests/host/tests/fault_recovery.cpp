// A kernel without end, one that prints too much, kernels that trap or whose assertion fails, one that writes where it
// may not: each in a process of its own, which gets the error that is documented, while another process goes on, and
// after which a new one computes at once.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
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
constexpr std::uint64_t kMostLines = 1u << 20, kFewLines = 1u << 15;
constexpr std::uint64_t kDistance = std::uint64_t{1} << 43;  // words: far behind everything that a driver maps

/// How an API says what a kernel did.
struct Documented {
    const char *backend, *role;
    std::vector<long> codes;
    bool aborts;  // or the process ends by SIGABRT
};

/// CUDA: the descriptions of CUresult; drivers have reported a trap as 715 and as 719. HIP: hip_runtime_api.h; up to
/// ROCm 6 the runtime aborts as soon as a queue reports an exception. Level Zero: ze_result_t has one error for all,
/// and Intel's driver aborts after a page fault. OpenCL has no word for any of it: those are its general errors of a
/// command, and NVIDIA's own.
const Documented &documented(const std::string &backend, const std::string &role) {
    static const Documented all[] = {
        {"cuda", "assert", {710}, false},
        {"cuda", "trap", {715, 719}, false},
        {"cuda", "beyond", {700, 719}, false},
        {"hip", "trap", {710, 719}, true},
        {"hip", "beyond", {700, 719}, true},
        {"level-zero", "beyond", {0x70000001}, true},
        {"opencl", "beyond", {-5, -14, -36, -9999}, true},
    };
    for (const Documented &one : all) {
        if (backend == one.backend && role == one.role) return one;
    }
    throw OwnError("no error is documented for " + role + " on " + backend);
}

/// What the opened device computes on; behind OpenCL's fake is the processor.
bool on_processor(const Context &context) {
    const std::string &kind = context.device().kind;
    return kind == "cpu-runtime" || (kind == "fake" && context.options.backend == "opencl");
}

struct Code {
    Handle module;
    Handle out;
};

Code prepare(Context &context) {
    context.open_device();
    return {context.module("trouble"), context.backend.alloc(kWords * 4)};
}

/// Whether a call is refused with this error.
template <class F>
bool refused(long code, F call) {
    try {
        call();
    } catch (const ApiFailure &e) {
        return e.code == code;
    }
    return false;
}

/// CUDA documents that a broken context returns the error that broke it from every later call.
void check_broken(Context &context, const Code &code, Handle kernel, Handle queue, Handle event, long error) {
    Backend &backend = context.backend;
    std::uint32_t word = 0;
    std::uint64_t calls = 0, taken = 0;
    std::string which;
    const auto must_fail = [&](const char *what, const std::function<void()> &call) {
        ++calls;
        if (refused(error, call)) return;
        ++taken;
        which += (which.empty() ? "not from: " : ", ") + std::string(what);
    };
    must_fail("free memory", [&] { backend.memory(); });
    must_fail("allocation", [&] { backend.free(backend.alloc(4)); });
    must_fail("write", [&] { backend.write(code.out, &word, sizeof word); });
    must_fail("read", [&] { backend.read(code.out, &word, sizeof word); });
    must_fail("launch", [&] { backend.enqueue(queue, kernel, 64, 64, {Arg::u32(0), Arg::mem(code.out)}); });
    must_fail("record", [&] { backend.record(event, queue); });
    must_fail("wait", [&] { backend.finish(queue); });
    must_fail("queue", [&] { backend.queue(); });
    must_fail("kernel", [&] { backend.kernel(code.module, "gt_endless"); });
    context.check("context_stays_broken", calls, taken, which);
}

/// The child that commits the fault. It reports the documented error as a good check; anything else is a bad one.
void offend(Context &context, const std::string &role) {
    Backend &backend = context.backend;
    const Code code = prepare(context);
    const std::vector<std::uint32_t> zeros(kWords, 0);
    backend.write(code.out, zeros.data(), kWords * 4);
    std::vector<Arg> arguments{Arg::u32(kWords), Arg::mem(code.out)};
    if (role == "beyond") arguments.push_back(Arg::u64(kDistance));
    const Handle kernel = backend.kernel(code.module, ("gt_" + role).c_str());
    const Handle queue = backend.queue(), event = backend.event();
    context.check("ready", 1, 0);
    std::string said = "the driver reported no error";
    long error = 0;
    try {
        backend.launch(kernel, kWords, 64, arguments);
        backend.read(code.out, std::vector<std::uint32_t>(kWords).data(), kWords * 4);
    } catch (const ApiFailure &e) {
        said = e.what();
        error = e.code;
    }
    if (role == "endless") throw ApiFailure("a kernel without end has ended: " + said);
    const std::vector<long> &codes = documented(context.options.backend, role).codes;
    const bool as_documented = std::find(codes.begin(), codes.end(), error) != codes.end();
    context.check("documented_error", 1, !as_documented, said);
    if (as_documented && context.options.backend == "cuda") check_broken(context, code, kernel, queue, event, error);
}

/// Standard output, where drivers write what kernels print, as a file for as long as this lives.
class Printed {
  public:
    Printed() : kept_(::dup(1)), file_(std::tmpfile()) {
        if (kept_ < 0 || !file_ || ::dup2(::fileno(file_), 1) < 0) throw OwnError("standard output cannot be a file");
    }
    ~Printed() {
        std::fflush(stdout);
        ::dup2(kept_, 1);
        ::close(kept_);
        std::fclose(file_);
    }
    Printed(const Printed &) = delete;
    Printed &operator=(const Printed &) = delete;

    std::vector<std::string> lines() {
        std::fflush(stdout);
        std::rewind(file_);
        std::vector<std::string> out;
        char line[256];
        while (std::fgets(line, sizeof line, file_)) out.emplace_back(line);
        return out;
    }

  private:
    int kept_;
    std::FILE *file_;
};

/// The child whose kernel prints more than the buffer for it holds. That is no error: lines are lost, the others are
/// whole, and everything else goes on.
void print_too_much(Context &context) {
    context.open_device();
    Backend &backend = context.backend;
    const std::uint64_t room = backend.properties().printf_bytes;
    context.require(room > 0, "buffer for what kernels print");
    const Handle module = context.module("printf");
    // No driver keeps a line of two numbers in less than 16 bytes. A processor writes each group's lines at once, so
    // that its buffer never overflows, and takes long for it.
    const std::uint64_t most = on_processor(context) ? kFewLines : kMostLines;
    const std::uint32_t n = static_cast<std::uint32_t>(std::min(room / 8, most));
    Guarded out(backend, n, 1);
    out.poison_all();
    context.check("ready", 1, 0);
    std::vector<std::string> lines;
    Guarded::Bad bad;
    {
        Printed printed;
        const std::vector<Arg> arguments{Arg::u32(n), Arg::mem(out.buffer()), Arg::u32(out.first())};
        backend.launch(backend.kernel(module, "gt_print"), n, 64, arguments);
        bad = out.verify([](std::uint32_t i) { return mix(i); });
        lines = printed.lines();
    }
    context.check("printing_kernel_computes", n, bad.payload + bad.canaries);
    std::vector<bool> seen(n, false);
    std::uint64_t whole = 0;
    std::string first_bad;
    for (const std::string &line : lines) {
        char expected[64];
        unsigned item = 0;
        const bool read = std::sscanf(line.c_str(), "gt_print %u", &item) == 1 && item < n && !seen[item];
        if (read) std::snprintf(expected, sizeof expected, "gt_print %u %u\n", item, mix(item));
        if (read && line == expected) seen[item] = true, ++whole;
        else if (first_bad.empty()) first_bad = "'" + line.substr(0, line.find('\n')) + "'";
    }
    const std::string count = std::to_string(whole) + " lines of " + std::to_string(n);
    context.check("printed_lines_are_whole", lines.size(), lines.size() - whole,
                  first_bad.empty() ? count : first_bad + "; " + count);
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
        context_.open_device();
        cpu_ = on_processor(context_);
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
        const std::string &backend = context_.options.backend;
        if (backend == "hip") context_.skipped("printf", "HIP hands each line to the host: no buffer overflows");
        else overflow(times);
        if (backend == "cuda") fault("assert", times);
        else if (backend == "hip") context_.skipped("assert", "a failed assertion of HIP is its message and a trap");
        if (backend == "cuda" || backend == "hip") fault("trap", times);
        else context_.skipped("assert and trap", "OpenCL C has neither");
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

    void overflow(std::vector<double> &times) {
        beside("printf", times, [&] {
            const std::unique_ptr<Child> child = start("printf");
            const bool passed = child->wait(kPatience).passed();
            context_.check("printf_overflow_is_no_error", 1, !passed,
                           child->story() + "; " + child->text("check", "detail", "printed_lines_are_whole"));
        });
    }

    void fault(const std::string &role, std::vector<double> &times) {
        beside(role, times, [&] {
            const std::unique_ptr<Child> child = start(role);
            const bool ready = child->said("ready", kPatience);
            const Ended &ended = child->wait(limit_);
            // On a processor, and in a runtime that gives up by abort, the signal is the error; a hang never is.
            const bool aborts = ended.signal == SIGABRT && documented(context_.options.backend, role).aborts;
            const bool signalled = ended.signal != 0 && !ended.timed_out && (cpu_ || aborts);
            const bool good = ready && (ended.passed() || signalled);
            context_.check(role + "_is_reported", 1, !good,
                           child->story() + "; " + child->text("check", "detail", "documented_error"));
        });
    }

    Context &context_;
    double limit_ = kRecovery;
    bool cpu_ = false;
};

void fault_recovery(Context &context) {
    const std::string role = context.argument("role");
    if (role == "bystander") stand_by(context);
    else if (role == "printf") print_too_much(context);
    else if (role == "endless" || role == "assert" || role == "trap" || role == "beyond") offend(context, role);
    else if (role.empty()) Recovery(context).run();
    else throw OwnError("fault_recovery has no role " + role);
}

GT_TEST("fault_recovery", fault_recovery);

}  // namespace
