// The STREAM triad: exact first, then timed, then exact again on what the timed launches left.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "../data.h"
#include "../test.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::size_t kSets = 3;                 // rotated, so that a launch finds none of its data in a cache
constexpr std::size_t kMinReps = 20;
constexpr std::size_t kMaxReps = 200;
constexpr double kMinTimedSeconds = 0.2;
constexpr double kShare = 0.3;                   // of the budget: for making and checking data, and for timing
constexpr double kLaunchSeconds = 0.02;          // wanted length of one launch: long against its overhead
constexpr std::uint64_t kLeastWords = 128u << 10;  // some runtimes compile anew for smaller launches
constexpr std::uint64_t kMaxWords = 32u << 20;   // 128 MiB an array
constexpr double kRatioLow = 0.5, kRatioHigh = 1.02;  // device time over wall time
constexpr int kSeries = 3;
constexpr double kOutlier = 100.0;               // no load makes the median so much slower than one launch

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
        context.phase("compile");
        Backend &backend = context.backend;
        kernel_ = backend.kernel(backend.build(context.source("triad.inc")), "gt_triad");
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
        // A machine under load can spoil one series of launches; a clock that lies spoils every series.
        for (int series = 1; !time(n, series == kSeries); ++series) context_.phase("time again");
        context_.phase("verify again");
        verify("triad_exact_after_timing", n);
        const std::uint32_t wanted = static_cast<std::uint32_t>(launches_);
        const Guarded::Bad counted = counter_->verify([&](std::uint32_t) { return wanted; });
        context_.check("every_launch_ran", launches_, counted.payload);
    }

  private:
    struct Time {
        double device, wall;
    };

    Time launch(Set &set) {
        const std::vector<Arg> args = set.args(scale(launches_++), *counter_);
        const double before = monotonic_seconds();
        const double device = context_.backend.launch(kernel_, n_, kGroup, args);
        return {device, monotonic_seconds() - before};
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

    /// Time one series and report it. When the clocks disagree: false, or Implausible on the `last` try.
    bool time(std::uint32_t n, bool last) {
        context_.phase("warm up");
        for (auto &set : sets_) launch(*set);
        for (auto &set : sets_) set->poison();  // what the timed launches must overwrite
        context_.phase("time");
        const double share = kShare * context_.options.budget;
        std::vector<double> rates, ratios, devices;
        double spent = 0.0, best = 0.0;
        while (devices.size() < kMaxReps) {
            const bool enough = devices.size() >= kMinReps && spent >= kMinTimedSeconds;
            if (enough && spent >= share) break;
            const Time t = launch(*sets_[devices.size() % kSets]);
            if (!(t.device > 0.0) || !(t.wall > 0.0)) throw Implausible("a launch took no time on the device's clock");
            devices.push_back(t.device);
            ratios.push_back(t.device / t.wall);
            best = std::max(best, t.device / t.wall);
            rates.push_back(12.0 * n / t.device);
            spent += t.wall;
            if (devices.size() == kMaxReps && spent < kMinTimedSeconds) {
                // Only a device that outruns the largest arrays comes here: time goes on, samples are thinned.
                thin(rates), thin(ratios), thin(devices);
            }
        }
        // Load on the machine stretches the wall's time of some launches, a lying clock is wrong in all of them: so the
        // launch that agrees best must agree well enough. Nothing makes the device's time the longer one.
        const double ratio = quantile(ratios, 0.5);
        char text[160];
        if (best < kRatioLow || ratio > kRatioHigh) {
            if (!last) return false;
            std::snprintf(text, sizeof text,
                          "the device's clock shows %.4g of the wall clock's time (believable: %g to %g)",
                          best < kRatioLow ? best : ratio, kRatioLow, kRatioHigh);
            throw Implausible(text);
        }
        const double fastest = *std::min_element(devices.begin(), devices.end());
        const double usual = quantile(devices, 0.5);
        if (fastest * kOutlier < usual) {
            std::snprintf(text, sizeof text, "one launch took %.4g s, the median %.4g s", fastest, usual);
            throw Implausible(text);
        }
        context_.metric("triad_bw", "B/s", "higher", rates, ratio);
        return true;
    }

    static void thin(std::vector<double> &values) {
        for (std::size_t i = 0; i < values.size() / 2; ++i) values[i] = values[2 * i];
        values.resize(values.size() / 2);
    }

    static double quantile(std::vector<double> values, double q) {
        const auto place = values.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
        std::nth_element(values.begin(), place, values.end());
        return *place;
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
