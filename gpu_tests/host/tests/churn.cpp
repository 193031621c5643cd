// Contexts opened and closed, processes started and killed in the middle of their work: does the driver clean up after
// each?
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>

#include "../child.h"
#include "../data.h"
#include "../hostmem.h"

namespace {

using namespace gt;

constexpr std::size_t kContexts = 200, kProcesses = 50, kKilled = 10;
constexpr std::size_t kFewest = 8, kFewestProcesses = 2;   // however small the budget
constexpr std::size_t kWarmUp = 3;  // contexts after which a driver has allocated what it keeps: the rest shows leaks
constexpr std::uint64_t kTolerance = 64u << 20;             // bytes
constexpr double kPatience = 60.0;  // seconds for one process: it ends a wait, it measures nothing
constexpr std::uint32_t kWords = 1000;

/// How often each kernel module of a compute driver is in use.
std::map<std::string, long> references() {
    std::map<std::string, long> out;
    for (const char *module : {"nvidia", "nvidia_uvm", "nvidia_modeset", "amdgpu", "amdkfd", "i915", "xe", "nouveau"}) {
        std::ifstream file(std::string("/sys/module/") + module + "/refcnt");
        long count = 0;
        if (file >> count) out[module] = count;
    }
    return out;
}

/// A child that keeps the device busy until somebody kills it.
void keep_busy(Context &context) {
    Backend &backend = context.backend;
    context.open_device();
    const Handle kernel = backend.kernel(context.module("trouble"), "gt_busy");
    Guarded out(backend, kWords, 0);
    std::uint32_t rounds = 1u << 12;
    const auto work = [&] {
        const double before = monotonic_seconds();
        backend.launch(
            kernel, kWords, 64,
            {Arg::u32(kWords), Arg::mem(out.buffer()), Arg::u32(out.first()), Arg::u32(1), Arg::u32(rounds)});
        return monotonic_seconds() - before;
    };
    while (work() < 0.2 && rounds < 1u << 30) rounds *= 2;
    context.check("busy", 1, 0);
    const double until = context.elapsed() + 2 * kPatience;
    while (context.elapsed() < until) work();
}

class Churn {
  public:
    explicit Churn(Context &context) : context_(context), backend_(context.backend) {}

    void run() {
        before_ = references();
        contexts();
        processes();
        killed();
        context_.phase("liveness");
        Child child(own_argv(context_.options, "enumerate", 1.0, kPatience));
        const bool answers = child.wait(kPatience).passed();
        context_.check("driver_answers", 1, !answers, child.story());
        modules();
    }

  private:
    /// Open, compute, close.
    void one_context() {
        backend_.open(context_.index());
        const Handle kernel = backend_.kernel(context_.module("vecadd"), "gt_vecadd");
        {
            Guarded a(backend_, kWords, 1), b(backend_, kWords, 3), sum(backend_, kWords, 0);
            const std::uint32_t salt = static_cast<std::uint32_t>(opened_++);
            a.fill([&](std::uint32_t i) { return bits(lattice(salt, i)); });
            b.fill([&](std::uint32_t i) { return bits(lattice(salt + 1, i)); });
            sum.poison_all();
            backend_.launch(kernel, kWords, 64,
                            {Arg::u32(kWords), Arg::mem(a.buffer()), Arg::u32(a.first()), Arg::mem(b.buffer()),
                             Arg::u32(b.first()), Arg::mem(sum.buffer()), Arg::u32(sum.first())});
            const Guarded::Bad bad =
                sum.verify([&](std::uint32_t i) { return bits(lattice(salt, i) + lattice(salt + 1, i)); });
            wrong_ += bad.payload + bad.canaries;
            free_ = backend_.properties().memory_info ? backend_.memory().free : 0;
        }
        backend_.close();
    }

    static std::uint64_t resident_now() {
        ::malloc_trim(0);
        return resident();
    }

    void contexts() {
        context_.phase("contexts");
        context_.open_device();
        backend_.close();
        const double until = context_.elapsed() + 0.4 * context_.options.budget;
        std::vector<double> times;
        std::size_t files = 0;
        std::uint64_t memory = 0, host = 0;
        while (times.size() < kContexts && (times.size() < kFewest || context_.elapsed() < until)) {
            const double before = monotonic_seconds();
            one_context();
            times.push_back(monotonic_seconds() - before);
            if (times.size() == kWarmUp) files = open_files(), memory = free_, host = resident_now();
        }
        const std::size_t more = open_files() > files ? open_files() - files : 0;
        const std::uint64_t grown = resident_now() > host ? resident_now() - host : 0;
        context_.check("contexts_compute", times.size() * kWords, wrong_);
        context_.check("no_file_leaks", times.size(), more, std::to_string(more) + " files more than before");
        context_.check("no_host_memory_leaks", 1, grown > kTolerance,
                       std::to_string(grown) + " bytes more than before");
        if (memory) {
            const std::uint64_t lost = memory > free_ ? memory - free_ : 0;
            context_.check("no_device_memory_leaks", 1, lost > kTolerance, std::to_string(lost) + " bytes are missing");
        }
        context_.metric("context_time", "s", "lower", times);
    }

    /// A vector addition in a new process, which must be right.
    bool canary_passes(std::string &story) { return canary(context_, kPatience, &story).passed(); }

    void processes() {
        context_.phase("processes");
        const double until = context_.elapsed() + 0.3 * context_.options.budget;
        std::uint64_t started = 0, bad = 0;
        std::string story, first;
        std::vector<double> times;
        while (started < kProcesses && (started < kFewestProcesses || context_.elapsed() < until) && bad == 0) {
            const double before = monotonic_seconds();
            ++started;
            if (!canary_passes(story)) ++bad, first = story;
            times.push_back(monotonic_seconds() - before);
        }
        context_.check("processes_compute", started, bad, first);
        if (bad == 0) context_.metric("process_time", "s", "lower", times);
    }

    void killed() {
        context_.phase("processes that are killed");
        const double until = context_.elapsed() + 0.3 * context_.options.budget;
        std::uint64_t killed = 0, not_busy = 0, stuck = 0, after = 0;
        std::string story;
        while (killed < kKilled && (killed < kFewestProcesses || context_.elapsed() < until) &&
               !(stuck + after + not_busy)) {
            Child child(own_argv(context_.options, context_.options.test, 1.0, kPatience, {"role=busy"}));
            if (!child.said("busy", kPatience)) {
                ++not_busy;
                story = child.story();
                break;
            }
            ::usleep(5000 + mix(static_cast<std::uint32_t>(killed)) % 50000);  // somewhere in a kernel
            if (child.kill().stuck) ++stuck, story = child.story();
            ++killed;
            std::string said;
            if (!canary_passes(said)) ++after, story = said;
        }
        context_.check("killed_processes_were_busy", killed + not_busy, not_busy, story);
        context_.check("killed_processes_are_gone", killed, stuck, story);
        context_.check("others_compute_after_a_kill", killed, after, story);
    }

    void modules() {
        // A driver may let go of the last process a moment later.
        const double until = monotonic_seconds() + 5.0;
        std::map<std::string, long> now = references();
        while (now != before_ && monotonic_seconds() < until) {
            ::usleep(100000);
            now = references();
        }
        if (before_.empty()) {
            context_.skipped("module references", "no kernel module of a compute driver is loaded here");
            return;
        }
        std::uint64_t more = 0;
        std::string detail;
        for (const auto &[module, count] : now) {
            const auto old = before_.find(module);
            if (old != before_.end() && count <= old->second) continue;
            ++more;
            detail += module + ": " + std::to_string(count) + " references; ";
        }
        context_.check("modules_are_let_go", now.size(), more, detail);
    }

    Context &context_;
    Backend &backend_;
    std::map<std::string, long> before_;
    std::size_t opened_ = 0;
    std::uint64_t wrong_ = 0, free_ = 0;
};

void churn(Context &context) {
    if (context.argument("role") == "busy") keep_busy(context);
    else Churn(context).run();
}

GT_TEST("churn", churn);

}  // namespace
