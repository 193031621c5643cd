// The peak of the ordinary lanes: multiply-adds in registers, whose result tells how many were done, against
// lanes * units * clock, with the clock that the device runs at while it does them.
#include <algorithm>
#include <memory>

#include "../data.h"
#include "../roofline.h"
#include "../series.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::uint32_t kItemsPerUnit = 2048;      // as many as a unit of a large GPU holds
constexpr std::uint32_t kMostItems = 1u << 20;
constexpr std::uint32_t kMostRounds = 1u << 19;    // fp32 counts the rounds exactly up to here
constexpr std::uint32_t kChains = 8, kPairs = 16;  // of a round
constexpr double kLaunchSeconds = 0.02;
constexpr double kShare = 0.08;                    // of the budget, for each kind of numbers
constexpr int kBusyLaunches = 3;                   // while the device's clock is read
constexpr std::uint32_t kWords = 0xA5000000u, kHasFp64 = 1u, kHasFp16 = 2u;
// Of the recurrence in whole numbers: odd factors keep every bit of the chain.
constexpr std::uint32_t kFactor = 1664525u, kFirst = 1013904223u, kSecond = 0x9E3779B9u;

struct Kind {
    const char *name, *kernel, *unit;
    Lanes lanes;
    double wide;  // numbers in one multiply-add of a chain
};

std::uint32_t seed(std::uint32_t i, std::uint32_t salt, std::uint32_t chain) { return mix(mix(i + salt) + chain); }

/// What a chain of floating-point numbers holds: each pair of steps adds one.
std::uint32_t counted(std::uint32_t i, std::uint32_t salt, std::uint32_t rounds) {
    std::uint32_t mixed = 0;
    for (std::uint32_t j = 0; j < kChains; ++j) mixed = mixed * 31 + ((seed(i, salt, j) & 0xFFFF) + kPairs * rounds);
    return mixed;
}

/// The same in packed half precision, which is summed up and set back every 32 rounds.
std::uint32_t counted_in_half(std::uint32_t i, std::uint32_t salt, std::uint32_t rounds) {
    const std::uint32_t resets = rounds / 32, rest = kPairs * (rounds % 32), full = kPairs * 32;
    std::uint32_t mixed = 0, sum = 0;
    for (std::uint32_t j = 0; j < kChains; ++j) {
        const std::uint32_t x = seed(i, salt, j) & 0xFF, y = seed(i, salt, j) >> 8 & 0xFF;
        sum += resets * (x + full + 3 * (y + full));
        mixed = (mixed * 31 + x + rest) * 31 + y + rest;
    }
    return mixed + sum;
}

/// The recurrence modulo 2^32, all of it at once: x -> a x + c done twice is x -> a^2 x + (a + 1) c.
struct Affine {
    std::uint32_t a = 1, c = 0;
};
Affine recurrence(std::uint32_t rounds) {
    Affine all, power{kFactor * kFactor, kFirst * kFactor + kSecond};
    for (std::uint32_t times = kPairs * rounds; times != 0; times >>= 1) {
        if (times & 1) all = {all.a * power.a, all.c * power.a + power.c};
        power = {power.a * power.a, power.c * (power.a + 1)};
    }
    return all;
}

class Peak {
  public:
    explicit Peak(Context &context) : context_(context), backend_(context.backend) {
        const DeviceInfo &device = context.open_device();
        module_ = context.module("peak");
        const std::uint32_t per_unit = device.kind == "gpu" ? kItemsPerUnit : kGroup;
        n_ = std::min(kMostItems, std::max(1u, device.compute_units) * per_unit) - 1;  // the last group is not full
        out_ = std::make_unique<Guarded>(backend_, n_, 1);
        launches_ = std::make_unique<Guarded>(backend_, 1, 0);
        launches_->fill([](std::uint32_t) { return 0u; });
    }

    void run() {
        const std::uint32_t words = words_of_this_code();
        if (!context_.first_failure().empty()) return;
        const Properties properties = backend_.properties();
        measure({"fp32", "gt_peak_fp32", "flop/s", Lanes::kFp32, 1.0});
        if (properties.fp64 && (words & kHasFp64)) {
            measure({"fp64", "gt_peak_fp64", "flop/s", Lanes::kFp64, 1.0});
        } else {
            context_.skipped("fp64", properties.fp64 ? "not in this form of the device code" : "not in the device");
        }
        if (properties.fp16 && (words & kHasFp16)) {
            measure({"fp16", "gt_peak_fp16", "flop/s", Lanes::kFp16, 2.0});
        } else {
            context_.skipped("fp16", properties.fp16 ? "not in this form of the device code" : "not in the device");
        }
        measure({"int32", "gt_peak_int32", "op/s", Lanes::kInt32, 1.0});
        const std::uint32_t wanted = static_cast<std::uint32_t>(launched_);
        context_.check("every_launch_ran", launched_, launches_->verify([&](std::uint32_t) { return wanted; }).payload);
    }

  private:
    std::uint32_t words_of_this_code() {
        Guarded words(backend_, 1, 0);
        words.poison_all();
        backend_.launch(backend_.kernel(module_, "gt_peak_words"), 1, 1,
                        {Arg::u32(1), Arg::mem(words.buffer()), Arg::u32(words.first())});
        std::uint32_t told = 0;
        words.fetch();
        told = words.payload()[0];
        context_.check("words_of_the_language", 1, (told & ~(kHasFp64 | kHasFp16)) != kWords);
        return told;
    }

    std::vector<Arg> arguments(Lanes lanes) {
        salt_ = mix(static_cast<std::uint32_t>(launched_++));
        std::vector<Arg> args = {Arg::u32(n_),      Arg::mem(out_->buffer()), Arg::u32(out_->first()),
                                 Arg::u32(rounds_), Arg::u32(salt_),          Arg::mem(launches_->buffer()),
                                 Arg::u32(launches_->first())};
        const bool whole = lanes == Lanes::kInt32;
        args.push_back(whole ? Arg::u32(kFactor) : Arg::f32(-1.0f));
        args.push_back(whole ? Arg::u32(kFirst) : Arg::f32(3.0f));
        args.push_back(whole ? Arg::u32(kSecond) : Arg::f32(4.0f));
        return args;
    }

    void measure(const Kind &kind) {
        if (!context_.first_failure().empty()) return;  // a rate of wrong results means nothing
        const Handle kernel = backend_.kernel(module_, kind.kernel);
        const auto launch = [&] {
            const std::vector<Arg> args = arguments(kind.lanes);
            return on_wall([&] { return backend_.launch(kernel, n_, kGroup, args); });
        };
        context_.phase("calibrate");
        rounds_ = 33;
        out_->poison_all();
        launch();
        verify(kind, "_exact");
        if (!context_.first_failure().empty()) return;
        for (double wall = launch().wall; wall < 0.7 * kLaunchSeconds && rounds_ < kMostRounds; wall = launch().wall) {
            const double grow = std::clamp(kLaunchSeconds / wall, 1.5, 8.0);
            rounds_ = std::min(kMostRounds, static_cast<std::uint32_t>(rounds_ * grow));
        }
        SeriesOptions options;
        options.warm_up = 1;
        options.max_seconds = std::max(options.min_seconds, kShare * context_.options.budget);
        options.before = [&] { out_->poison_all(); };
        const Series series = timed(context_, options, [&](std::size_t) { return launch(); });
        context_.phase("verify");
        verify(kind, "_exact_after_timing");
        // The clock is that of a busy device: it is looked at while launches run.
        context_.phase("clock");
        for (int i = 0; i < kBusyLaunches; ++i) backend_.enqueue(nullptr, kernel, n_, kGroup, arguments(kind.lanes));
        const double operations = 2.0 * kind.wide * kChains * 2 * kPairs * rounds_ * static_cast<double>(n_);
        context_.metric(std::string(kind.name) + "_peak", kind.unit, "higher", rates(operations, series.device),
                        series.wall_ratio, lanes_roof(context_, kind.lanes));
        backend_.finish(nullptr);
    }

    void verify(const Kind &kind, const char *name) {
        const Affine all = recurrence(rounds_);
        const Guarded::Bad bad = out_->verify([&](std::uint32_t i) {
            if (kind.lanes == Lanes::kFp16) return counted_in_half(i, salt_, rounds_);
            if (kind.lanes != Lanes::kInt32) return counted(i, salt_, rounds_);
            std::uint32_t mixed = 0;
            for (std::uint32_t j = 0; j < kChains; ++j) mixed = mixed * 31 + (seed(i, salt_, j) * all.a + all.c);
            return mixed;
        });
        context_.check(kind.name + std::string(name), n_, bad.payload);
        context_.check(kind.name + std::string(name) + "_canaries", 2 * kCanaryWords, bad.canaries);
    }

    Context &context_;
    Backend &backend_;
    Handle module_ = nullptr;
    std::unique_ptr<Guarded> out_, launches_;
    std::uint32_t n_ = 0, rounds_ = 0, salt_ = 0;
    std::uint64_t launched_ = 0;
};

void peak(Context &context) { Peak(context).run(); }

GT_TEST("peak", peak);

}  // namespace
