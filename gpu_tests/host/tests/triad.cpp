// The STREAM triad: exact first, then timed, then exact again on what the timed launches left.
#include <algorithm>
#include <memory>

#include "../data.h"
#include "../roofline.h"
#include "../series.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::size_t kSets = 3;                 // rotated, so that a launch finds none of its data in a cache
constexpr double kShare = 0.3;                   // of the budget: for making and checking data, and for timing
constexpr double kLaunchSeconds = 0.02;          // wanted length of one launch: long against its overhead
constexpr std::uint64_t kLeastWords = 128u << 10;  // some runtimes compile anew for smaller launches
constexpr std::uint64_t kMaxWords = 32u << 20;   // 128 MiB an array

float scale(std::size_t launch) { return launch % 3 == 0 ? 0.5f : launch % 3 == 1 ? 0.25f : 0.125f; }

/// One buffer set a[] = b[] + scale * c[], and what it must hold.
class Set {
  public:
    Set(Backend &backend, std::uint32_t n, std::uint32_t salt)
        : n_(n), salt_(salt), a_(backend, n, salt % 5), b_(backend, n, 0), c_(backend, n, 0) {
        b_.fill([&](std::uint32_t i) { return bits(lattice(salt, i)); });
        c_.fill([&](std::uint32_t i) { return bits(lattice(salt + 1, i)); });
        a_.poison_all();
    }

    std::vector<Arg> args(float s, const Guarded &launches) {
        scale_ = s;
        return {Arg::u32(n_),
                Arg::mem(a_.buffer()), Arg::u32(a_.first()),
                Arg::mem(b_.buffer()), Arg::u32(b_.first()),
                Arg::mem(c_.buffer()), Arg::u32(c_.first()),
                Arg::f32(s),
                Arg::mem(launches.buffer()), Arg::u32(launches.first())};
    }

    void poison() { a_.poison_all(); }

    /// The result is exact for the scale of the last launch.
    Guarded::Bad verify() {
        return a_.verify([&](std::uint32_t i) { return bits(lattice(salt_, i) + scale_ * lattice(salt_ + 1, i)); });
    }

  private:
    std::uint32_t n_, salt_;
    float scale_ = 0.0f;
    Guarded a_, b_, c_;
};

class Triad {
  public:
    explicit Triad(Context &context) : context_(context), device_(context.open_device()) {
        Backend &backend = context.backend;
        kernel_ = backend.kernel(context.module("triad"), "gt_triad");
        counter_ = std::make_unique<Guarded>(backend, 1, 0);
        counter_->fill([](std::uint32_t) { return 0u; });
    }

    void run() {
        const std::uint32_t n = calibrate();
        context_.phase("prepare");
        for (std::uint32_t s = 0; s < kSets; ++s) {
            sets_.push_back(std::make_unique<Set>(context_.backend, n, 100 + 2 * s));
        }
        context_.phase("verify");
        for (auto &set : sets_) launch(*set);
        verify("triad_exact", n);
        if (!context_.first_failure().empty()) return;  // a rate of wrong results means nothing
        time(n);
        context_.phase("verify again");
        verify("triad_exact_after_timing", n);
        const std::uint32_t wanted = static_cast<std::uint32_t>(launches_);
        const Guarded::Bad counted = counter_->verify([&](std::uint32_t) { return wanted; });
        context_.check("every_launch_ran", launches_, counted.payload);
    }

  private:
    Time launch(Set &set) {
        const std::vector<Arg> args = set.args(scale(launches_++), *counter_);
        return on_wall([&] { return context_.backend.launch(kernel_, n_, kGroup, args); });
    }

    /// Find the array length at which one launch takes the wanted time, within memory and the share of the budget
    /// that the host may spend on making and checking data.
    std::uint32_t calibrate() {
        context_.phase("calibrate");
        const std::uint64_t memory = device_.mem_bytes / 4 / (kSets * 3 * 2 * 4);
        const std::uint64_t most = std::min<std::uint64_t>(kMaxWords, std::max<std::uint64_t>(memory, 4096));
        std::uint64_t words = std::min<std::uint64_t>(kLeastWords, most);
        while (true) {
            n_ = static_cast<std::uint32_t>(words) | 1u;  // odd: the last group is never full
            const double before = monotonic_seconds();
            Set set(context_.backend, n_, 50);
            const double host = (monotonic_seconds() - before) / static_cast<double>(n_);
            launch(set);  // compiles for this size, touches the pages
            const double wall = std::min(launch(set).wall, launch(set).wall);
            // Filling costs `host` seconds an element; checking about two thirds of that, and it is done twice.
            const double afford = kShare * context_.options.budget / (host * 2.7 * kSets);
            const std::uint64_t cap = std::min(most, static_cast<std::uint64_t>(afford));
            if (wall >= 0.7 * kLaunchSeconds || words >= cap) return n_;
            const double grow = std::clamp(kLaunchSeconds / std::max(wall, 1e-9), 1.5, 8.0);
            words = std::min(cap, static_cast<std::uint64_t>(static_cast<double>(words) * grow));
        }
    }

    void verify(const char *name, std::uint64_t n) {
        std::uint64_t wrong = 0, broken = 0;
        for (auto &set : sets_) {
            const Guarded::Bad bad = set->verify();
            wrong += bad.payload;
            broken += bad.canaries;
        }
        context_.check(name, n * kSets, wrong);
        context_.check(std::string(name) + "_canaries", kSets * 2 * kCanaryWords, broken);
    }

    void time(std::uint32_t n) {
        SeriesOptions options;
        options.warm_up = kSets;
        options.max_seconds = kShare * context_.options.budget;
        options.before = [&] {
            for (auto &set : sets_) set->poison();  // what the timed launches must overwrite
        };
        const Series series = timed(context_, options, [&](std::size_t i) { return launch(*sets_[i % kSets]); });
        context_.metric("triad_bw", "B/s", "higher", rates(12.0 * n, series.device), series.wall_ratio,
                        memory_roof(context_));
    }

    Context &context_;
    const DeviceInfo &device_;
    Handle kernel_ = nullptr;
    std::unique_ptr<Guarded> counter_;
    std::vector<std::unique_ptr<Set>> sets_;
    std::uint32_t n_ = 0;
    std::uint64_t launches_ = 0;
};

void triad(Context &context) { Triad(context).run(); }

GT_TEST("triad", triad);

}  // namespace
