// Work items that meet: atomic operations lose nothing, a lock excludes, a sum in a fixed order repeats to the bit,
// lanes read each other's registers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "../data.h"
#include "../series.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::uint32_t kItems = 65537, kFloatItems = 4097, kLockItems = 1025, kRateItems = 8192;
constexpr std::uint32_t kTreeItems = 100003;
constexpr std::uint32_t kSpins = 1u << 22;  // then an item gives the lock up: broken, not endless
constexpr std::uint32_t kTurns = 3;         // that each item takes the lock
constexpr int kTreeRuns = 20;
constexpr double kLaunchSeconds = 0.003;
constexpr std::uint32_t kMostTimes = 1u << 16;
constexpr std::uint32_t kWords = 0xA7000000u, kHasInt64 = 1u, kHasLanes = 2u;

float value(std::uint32_t word) {
    float out;
    std::memcpy(&out, &word, sizeof out);
    return out;
}

class Atomics {
  public:
    explicit Atomics(Context &context) : context_(context), backend_(context.backend) {
        context.open_device();
        module_ = context.module("atomics");
    }

    void run() {
        Guarded told(backend_, 1, 0);
        told.poison_all();
        launch("gt_atomics_words", 1, {&told}, {});
        told.fetch();
        const std::uint32_t words = told.payload()[0];
        context_.check("words_of_the_language", 1, (words & ~(kHasInt64 | kHasLanes)) != kWords);
        if (!context_.first_failure().empty()) return;
        context_.phase("words of 32 bits");
        words32();
        context_.phase("words of 64 bits");
        const bool int64 = backend_.properties().int64_atomics;
        if (int64 && (words & kHasInt64)) words64();
        else context_.skipped("words64", int64 ? "not in this form of the device code" : "not in the device");
        context_.phase("floats");
        floats();
        context_.phase("lock");
        lock();
        context_.phase("tree");
        tree();
        context_.phase("lanes");
        if (words & kHasLanes) shuffle();
        else context_.skipped("shuffle", "this language has no words for sub-groups");
        if (context_.first_failure().empty()) rate();
    }

  private:
    static constexpr std::uint32_t kSalt = 4711;

    double launch(const char *kernel, std::uint32_t n, std::initializer_list<const Guarded *> arrays,
                  const std::vector<Arg> &more) {
        return backend_.launch(backend_.kernel(module_, kernel), n, kGroup, args(n, arrays, more));
    }

    static std::vector<Arg> args(std::uint32_t n, std::initializer_list<const Guarded *> arrays,
                                 const std::vector<Arg> &more) {
        std::vector<Arg> out = {Arg::u32(n)};
        for (const Guarded *array : arrays) {
            out.push_back(Arg::mem(array->buffer()));
            out.push_back(Arg::u32(array->first()));
        }
        out.insert(out.end(), more.begin(), more.end());
        return out;
    }

    template <class F>
    void verify(const char *name, Guarded &array, std::uint64_t checked, F word) {
        const Guarded::Bad bad = array.verify(word);
        context_.check(name, checked, bad.payload, bad.payload ? "first at word " + std::to_string(bad.first) : "");
        context_.check(std::string(name) + "_canaries", 2 * kCanaryWords, bad.canaries);
    }

    void words32() {
        Guarded out(backend_, 4, 3), places(backend_, kItems, 1);
        out.fill([](std::uint32_t i) { return i == 1 ? ~0u : 0u; });
        places.fill([](std::uint32_t) { return 0u; });
        launch("gt_atomics_words32", kItems, {&out, &places}, {Arg::u32(kSalt)});
        std::uint32_t expected[4] = {0, ~0u, 0, kItems};
        for (std::uint32_t i = 0; i < kItems; ++i) {
            const std::uint32_t word = mix(i + kSalt);
            expected[0] += word;
            expected[1] = std::min(expected[1], word);
            expected[2] = std::max(expected[2], word);
        }
        verify("sum_least_greatest", out, std::uint64_t{4} * kItems, [&](std::uint32_t i) { return expected[i]; });
        verify("each_ticket_drawn_once", places, kItems, [](std::uint32_t) { return 1u; });
    }

    void words64() {
        Guarded out(backend_, 4, 2);  // an even place: 8 bytes
        out.fill([](std::uint32_t) { return 0u; });
        backend_.launch(backend_.kernel(module_, "gt_atomics_words64"), kItems, kGroup,
                        {Arg::u32(kItems), Arg::mem(out.buffer()), Arg::u32(out.first() / 2), Arg::u32(kSalt)});
        std::uint64_t all = 0, some = 0;
        for (std::uint32_t i = 0; i < kItems; ++i) {
            const std::uint64_t word = std::uint64_t{mix(i + kSalt)} << 32 | mix(i + kSalt + 1);
            all += word;
            if (i % 16 == 0) some += word;
        }
        verify("sums_of_64_bits", out, kItems + kItems / 16 + 1, [&](std::uint32_t i) {
            return static_cast<std::uint32_t>((i < 2 ? all : some) >> (i % 2 * 32));
        });
    }

    void floats() {
        Guarded out(backend_, 2, 1);
        out.fill([](std::uint32_t) { return 0u; });
        launch("gt_atomics_float", kFloatItems, {&out}, {Arg::u32(kSalt)});
        std::uint64_t exact = 0;
        double near = 0.0;
        for (std::uint32_t i = 0; i < kFloatItems; ++i) {
            exact += mix(i + kSalt) >> 24;
            near += static_cast<double>(mix(i + kSalt) >> 8) / 16777216.0;
        }
        const std::uint64_t canaries = out.fetch();
        const float sum = value(out.payload()[0]), random = value(out.payload()[1]);
        context_.check("float_sum_exact", kFloatItems, sum != static_cast<float>(exact) / 256.0f);
        // n additions of positive numbers err by at most n half-units in the last place of their sum.
        const double bound = kFloatItems * std::ldexp(near, -24);
        char text[120];
        std::snprintf(text, sizeof text, "%.9g, not within %.3g of %.9g", random, bound, near);
        const bool within = std::fabs(random - near) <= bound;
        context_.check("float_sum_within_bound", kFloatItems, !within, within ? "" : text);
        context_.check("float_sum_canaries", 2 * kCanaryWords, canaries);
    }

    void lock() {
        Guarded out(backend_, 4, 5);
        out.fill([](std::uint32_t) { return 0u; });
        launch("gt_atomics_lock", kLockItems, {&out}, {Arg::u32(kSpins), Arg::u32(kTurns)});
        std::uint32_t sum = 0;
        for (std::uint32_t i = 0; i < kLockItems; ++i) {
            for (std::uint32_t left = kTurns; left > 0; --left) sum += mix(i + left);
        }
        const std::uint32_t expected[4] = {0, kTurns * kLockItems, sum, 0};
        verify("lock_excludes", out, std::uint64_t{kTurns} * kLockItems, [&](std::uint32_t i) { return expected[i]; });
    }

    /// The sum as the kernel makes it, level by level, in the same order.
    static std::vector<float> sums(const std::vector<float> &in) {
        std::vector<float> out;
        for (std::size_t begin = 0; begin < in.size(); begin += kGroup) {
            std::vector<float> part(kGroup, 0.0f);
            std::copy(in.begin() + static_cast<std::ptrdiff_t>(begin),
                      in.begin() + static_cast<std::ptrdiff_t>(std::min(begin + kGroup, in.size())), part.begin());
            for (std::size_t s = kGroup / 2; s > 0; s /= 2) {
                for (std::size_t l = 0; l < s; ++l) part[l] += part[l + s];
            }
            out.push_back(part[0]);
        }
        return out;
    }

    void tree() {
        // Numbers of all magnitudes between 2^-16 and 1, so that every other order gives another sum.
        const auto number = [](std::uint32_t i) {
            return std::ldexp(1.0f + static_cast<float>(mix(i + kSalt) >> 9) / 8388608.0f,
                              -1 - static_cast<int>(mix(i) % 16));
        };
        std::vector<float> level(kTreeItems);
        for (std::uint32_t i = 0; i < kTreeItems; ++i) level[i] = number(i);
        const std::vector<float> first = sums(level), second = sums(first), last = sums(second);
        Guarded in(backend_, kTreeItems, 1), a(backend_, first.size(), 3), b(backend_, second.size(), 0),
            out(backend_, kTreeRuns, 1);
        in.fill([&](std::uint32_t i) { return bits(level[i]); });
        out.poison_all();
        const Handle kernel = backend_.kernel(module_, "gt_atomics_tree");
        for (std::uint32_t run = 0; run < kTreeRuns; ++run) {
            a.poison_all();
            b.poison_all();
            const auto one = [&](const Guarded &from, const Guarded &to, std::uint32_t at) {
                const std::uint32_t n = static_cast<std::uint32_t>(from.words());
                backend_.launch(kernel, n, kGroup,
                                {Arg::u32(n), Arg::mem(from.buffer()), Arg::u32(from.first()), Arg::mem(to.buffer()),
                                 Arg::u32(to.first() + at)});
            };
            one(in, a, 0);
            one(a, b, 0);
            one(b, out, run);
        }
        verify("partial_sums_in_order", a, kTreeItems, [&](std::uint32_t i) { return bits(first[i]); });
        verify("every_sum_the_same", out, kTreeRuns, [&](std::uint32_t) { return bits(last[0]); });
    }

    void shuffle() {
        constexpr std::uint32_t n = 2000;
        Guarded out(backend_, 3 * n, 1);
        out.poison_all();
        launch("gt_atomics_shuffle", n, {&out}, {Arg::u32(kSalt)});
        const std::uint64_t canaries = out.fetch();
        std::uint64_t wrong = 0;
        const std::uint32_t lanes = out.payload()[0] >> 16;
        const bool sane = lanes > 0 && lanes <= kGroup && (lanes & (lanes - 1)) == 0;
        for (std::uint32_t i = 0; i < n && sane; ++i) {
            const std::uint32_t *words = out.payload() + 3 * i;
            const std::uint32_t lane = words[0] & 0xFFFF, from = i - lane;
            std::uint32_t sum = 0;
            for (std::uint32_t l = 0; l < lanes; ++l) sum += mix(from + l + kSalt);
            wrong += words[0] >> 16 != lanes || lane != i % lanes || words[2] != sum ||
                     words[1] != mix(from + (lane * 5 + 3) % lanes + kSalt);
        }
        context_.check("lanes_read_each_other", n, sane ? wrong : n, std::to_string(lanes) + " lanes");
        context_.check("lanes_read_each_other_canaries", 2 * kCanaryWords, canaries);
    }

    void rate() {
        const Handle kernel = backend_.kernel(module_, "gt_atomics_rate");
        Guarded out(backend_, 1, 0);
        out.fill([](std::uint32_t) { return 0u; });
        std::uint32_t times = 4, expected = 0;
        const auto act = [&] {
            const std::vector<Arg> arguments = args(kRateItems, {&out}, {Arg::u32(times)});
            for (std::uint32_t i = 0; i < kRateItems; ++i) {
                for (std::uint32_t k = 0; k < times; ++k) expected += i ^ k;
            }
            return on_wall([&] { return backend_.launch(kernel, kRateItems, kGroup, arguments); });
        };
        context_.phase("calibrate");
        act();
        while (act().wall < kLaunchSeconds && times < kMostTimes) times *= 2;
        SeriesOptions options;
        options.max_seconds = std::max(options.min_seconds, 0.1 * context_.options.budget);
        const Series series = timed(context_, options, [&](std::size_t) { return act(); });
        verify("contended_sum", out, std::uint64_t{kRateItems} * times * series.device.size(),
               [&](std::uint32_t) { return expected; });
        context_.metric("contended_adds", "op/s", "higher",
                        rates(static_cast<double>(kRateItems) * times, series.device), series.wall_ratio);
    }

    Context &context_;
    Backend &backend_;
    Handle module_ = nullptr;
};

void atomics(Context &context) { Atomics(context).run(); }

GT_TEST("atomics", atomics);

}  // namespace
