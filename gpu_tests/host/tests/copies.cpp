// Copies between host and device and within the device: every word arrives, at every size, from pinned and pageable
// memory; then their rates, against the link's and the memory's rooflines.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>

#include "../data.h"
#include "../roofline.h"
#include "../series.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kSizes[] = {4096,        65536 - 8, 1u << 20,   (4u << 20) + 8,
                                  16u << 20, 64u << 20, 256u << 20, 1u << 30};
constexpr std::size_t kSmall = 4096, kLeastTimed = 16u << 20;
constexpr double kCopySeconds = 0.012;  // that a timed copy may take
constexpr double kShare = 0.4;          // of the budget: for making and checking data of all sizes

std::uint64_t hash(std::uint32_t seed, std::uint32_t i) {
    std::uint64_t z = (std::uint64_t{seed} << 32 | i) * 0x9E3779B97F4A7C15u + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/// Host memory between guards: pages that nobody may touch around pageable memory, canaries around pinned memory, which
/// the device reaches past any page protection.
class HostMemory {
  public:
    HostMemory(Backend &backend, std::size_t bytes, bool pinned) : backend_(backend), bytes_(bytes), pinned_(pinned) {
        if (pinned) {
            buffer_ = backend.alloc(bytes + 2 * kPage, Memory::kPinned);
            front_ = static_cast<unsigned char *>(backend.address(buffer_));
            lead_ = tail_ = kPage;
        } else {
            // The payload ends where the last page begins.
            const std::size_t whole = (bytes + kPage - 1) / kPage * kPage;
            mapped_ = whole + 2 * kPage;
            void *all = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (all == MAP_FAILED) throw OwnError("no host memory for " + std::to_string(mapped_) + " bytes");
            base_ = static_cast<unsigned char *>(all);
            ::mprotect(base_, kPage, PROT_NONE);
            ::mprotect(base_ + kPage + whole, kPage, PROT_NONE);
            front_ = base_ + kPage;
            lead_ = whole - bytes;
        }
        each_guard([](unsigned char &byte, std::size_t i) { byte = guard(i); });
    }
    ~HostMemory() {
        if (pinned_) backend_.free(buffer_);
        else ::munmap(base_, mapped_);
    }
    HostMemory(const HostMemory &) = delete;
    HostMemory &operator=(const HostMemory &) = delete;

    std::uint64_t *words() { return reinterpret_cast<std::uint64_t *>(front_ + lead_); }
    Place place() { return pinned_ ? Place::in(buffer_, lead_) : Place::at(words()); }
    std::size_t guards() const { return lead_ + tail_; }

    void fill(std::uint32_t seed) {
        for (std::uint32_t i = 0; i < bytes_ / 8; ++i) words()[i] = hash(seed, i);
    }
    void poison() { std::memset(words(), 0xA5, bytes_); }
    std::uint64_t wrong(std::uint32_t seed) {
        std::uint64_t bad = 0;
        for (std::uint32_t i = 0; i < bytes_ / 8; ++i) bad += words()[i] != hash(seed, i);
        return bad;
    }
    std::uint64_t broken() {
        std::uint64_t bad = 0;
        each_guard([&](unsigned char &byte, std::size_t i) { bad += byte != guard(i); });
        return bad;
    }

  private:
    static unsigned char guard(std::size_t i) { return static_cast<unsigned char>(mix(static_cast<std::uint32_t>(i))); }
    template <class F>
    void each_guard(F act) {
        for (std::size_t i = 0; i < lead_; ++i) act(front_[i], i);
        for (std::size_t i = 0; i < tail_; ++i) act(front_[lead_ + bytes_ + i], lead_ + i);
    }

    Backend &backend_;
    std::size_t bytes_, lead_ = 0, tail_ = 0, mapped_ = 0;
    bool pinned_;
    Handle buffer_ = nullptr;
    unsigned char *base_ = nullptr, *front_ = nullptr;
};

class Copies {
  public:
    explicit Copies(Context &context) : context_(context), backend_(context.backend), device_(context.open_device()) {
        const Handle module = context.module("copies");
        fill_ = backend_.kernel(module, "gt_copies_fill");
        verify_ = backend_.kernel(module, "gt_copies_verify");
    }

    void run() {
        const std::size_t largest = all_sizes();
        if (!context_.first_failure().empty()) return;  // a rate of wrong copies means nothing
        // Large enough to be long against what it takes to ask for a copy.
        std::size_t timed_bytes = std::min(largest, kLeastTimed);
        for (const auto &[bytes, seconds] : seconds_) {
            if (bytes <= largest && seconds <= kCopySeconds) timed_bytes = std::max(timed_bytes, bytes);
        }
        rates_of(timed_bytes);
        latencies();
    }

  private:
    static std::uint32_t words(std::size_t bytes) { return static_cast<std::uint32_t>(bytes / 8); }
    static std::uint32_t chunk(std::uint32_t n) {
        const std::uint32_t groups = std::clamp<std::uint32_t>(n / (kGroup * 8), 1, 2048);
        return (n + groups - 1) / groups;
    }
    static std::size_t items(std::uint32_t n) { return (n + chunk(n) - 1) / chunk(n) * kGroup; }
    static Place inside(const Fenced &array) { return Place::in(array.buffer(), array.first() * std::size_t{4}); }

    std::vector<Arg> arguments(const Fenced &array, std::uint32_t seed) const {
        const std::uint32_t n = static_cast<std::uint32_t>(array.words() / 2);
        return {Arg::u32(n), Arg::mem(array.buffer()), Arg::u32(array.first() / 2), Arg::u32(chunk(n)), Arg::u32(seed)};
    }

    void fill(const Fenced &array, std::uint32_t seed) {
        backend_.launch(fill_, items(static_cast<std::uint32_t>(array.words() / 2)), kGroup, arguments(array, seed));
    }

    /// Words of the array that the device finds wrong, by what it finds right.
    std::uint64_t wrong(const Fenced &array, std::uint32_t seed) {
        const std::uint32_t n = static_cast<std::uint32_t>(array.words() / 2);
        Guarded good(backend_, items(n), 1);
        good.poison_all();
        std::vector<Arg> args = arguments(array, seed);
        args.push_back(Arg::mem(good.buffer()));
        args.push_back(Arg::u32(good.first()));
        backend_.launch(verify_, items(n), kGroup, args);
        std::uint64_t bad = good.fetch() != 0;
        for (std::uint32_t item = 0; item < items(n); ++item) {
            const std::uint32_t begin = item / kGroup * chunk(n), end = std::min(begin + chunk(n), n);
            const std::uint32_t from = begin + static_cast<std::uint32_t>(item % kGroup);
            const std::uint32_t share = from < end ? static_cast<std::uint32_t>((end - from + kGroup - 1) / kGroup) : 0;
            const std::uint32_t right = good.payload()[item];
            bad += right <= share ? share - right : 1;
        }
        return bad;
    }

    /// Every size that memory and the budget allow, from pinned and from pageable memory and back. Returns the largest.
    std::size_t all_sizes() {
        const std::uint64_t pages = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_AVPHYS_PAGES)));
        const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
        const std::uint64_t room = std::min<std::uint64_t>(pages * page / 4, device_.mem_bytes) / 4;
        std::size_t largest = 0;
        double last = 0.0;
        const double started = monotonic_seconds();
        for (std::size_t bytes : kSizes) {
            const double grown = largest ? last * static_cast<double>(bytes) / static_cast<double>(largest) : 0.0;
            const double spent = monotonic_seconds() - started;
            if (largest > kSmall && (bytes > room || spent + grown > kShare * context_.options.budget)) break;
            context_.phase("verify");
            const double before = monotonic_seconds();
            one_size(bytes);
            last = monotonic_seconds() - before;
            largest = bytes;
            if (!context_.first_failure().empty()) break;
        }
        return largest;
    }

    void one_size(std::size_t bytes) {
        const std::string size = "_" + std::to_string(bytes);
        const std::uint32_t seed = words(bytes), other = ~seed;
        Fenced a(backend_, bytes / 4), b(backend_, bytes / 4);
        for (bool pinned : {true, false}) {
            const std::string kind = (pinned ? "pinned" : "pageable") + size;
            HostMemory from(backend_, bytes, pinned), to(backend_, bytes, pinned);
            from.fill(seed + pinned);
            to.poison();
            fill(a, other);
            fill(b, other + 1);
            const Time time = copied(inside(a), from.place(), bytes);
            if (pinned) seconds_[bytes] = time.wall;
            context_.check("to_device_" + kind, words(bytes), wrong(a, seed + pinned));
            backend_.copy(inside(b), inside(a), bytes);
            context_.check("in_device_" + kind, words(bytes), wrong(b, seed + pinned));
            backend_.copy(to.place(), inside(b), bytes);
            context_.check("to_host_" + kind, words(bytes), to.wrong(seed + pinned));
            context_.check("source_" + kind, words(bytes), from.wrong(seed + pinned));
            context_.check("guards_" + kind, 2 * to.guards() + 4 * kCanaryWords,
                           from.broken() + to.broken() + a.broken() + b.broken());
        }
    }

    Time copied(const Place &to, const Place &from, std::size_t bytes) {
        return on_wall([&] { return backend_.copy(to, from, bytes); });
    }

    SeriesOptions series(bool overhead) const {
        SeriesOptions options;
        options.min_seconds = 0.1;
        options.max_seconds = std::max(0.1, 0.05 * context_.options.budget);
        options.overhead = overhead;
        return options;
    }

    /// Rates at one size, and whether the last copy of each series was right.
    void rates_of(std::size_t bytes) {
        const double amount = static_cast<double>(bytes);
        const std::uint32_t seed = 17;
        Fenced a(backend_, bytes / 4), b(backend_, bytes / 4);
        for (bool pinned : {true, false}) {
            const std::string name = pinned ? "" : "_pageable";
            HostMemory from(backend_, bytes, pinned), to(backend_, bytes, pinned);
            from.fill(seed);
            // What a driver does to reach pageable memory is part of the copy and not always of the device's time.
            SeriesOptions options = series(!pinned);
            options.before = [&] { fill(a, ~seed); };
            const Series down =
                timed(context_, options, [&](std::size_t) { return copied(inside(a), from.place(), bytes); });
            const std::uint64_t down_wrong = wrong(a, seed);
            context_.check("to_device" + name + "_after_timing", words(bytes), down_wrong);
            report("h2d" + name + "_bw", amount, down, pinned ? link_roof(context_) : Roof{});
            fill(a, seed);
            options.before = [&] { to.poison(); };
            const Series up =
                timed(context_, options, [&](std::size_t) { return copied(to.place(), inside(a), bytes); });
            context_.check("to_host" + name + "_after_timing", words(bytes), to.wrong(seed));
            report("d2h" + name + "_bw", amount, up, pinned ? link_roof(context_) : Roof{});
            if (pinned) both_ways(from, to, a, b, bytes, seed);
        }
        within(a, b, bytes, seed);
    }

    void report(const std::string &name, double amount, const Series &series, const Roof &roof) {
        if (!context_.first_failure().empty()) return;
        context_.metric(name, "B/s", "higher", rates(amount, series.device), series.wall_ratio, roof);
    }

    /// Both directions at once, on two queues: the sum of their rates, on the wall's clock.
    void both_ways(HostMemory &from, HostMemory &to, Fenced &a, Fenced &b, std::size_t bytes, std::uint32_t seed) {
        const Handle down = backend_.queue(), up = backend_.queue();
        fill(a, seed);
        SeriesOptions options = series(true);
        options.before = [&] {
            fill(b, ~seed);
            to.poison();
        };
        const Series both = timed(context_, options, [&](std::size_t) {
            const double before = monotonic_seconds();
            backend_.enqueue_copy(down, inside(b), from.place(), bytes);
            backend_.enqueue_copy(up, to.place(), inside(a), bytes);
            backend_.finish(down);
            backend_.finish(up);
            const double seconds = monotonic_seconds() - before;
            return Time{seconds, seconds};
        });
        context_.check("both_ways_after_timing", 2 * words(bytes), wrong(b, seed) + to.wrong(seed));
        Roof roof = link_roof(context_);
        roof.value *= 2.0;
        roof.at_clock *= 2.0;
        if (context_.first_failure().empty()) {
            const double amount = 2.0 * static_cast<double>(bytes);
            context_.metric("bidir_bw", "B/s", "higher", rates(amount, both.device), 0.0, roof);
        }
        backend_.free_queue(down);
        backend_.free_queue(up);
    }

    /// Within the device; each byte is read and written.
    void within(Fenced &a, Fenced &b, std::size_t bytes, std::uint32_t seed) {
        fill(a, seed);
        SeriesOptions options = series(false);
        options.before = [&] { fill(b, ~seed); };
        const Series inner = timed(context_, options, [&](std::size_t) { return copied(inside(b), inside(a), bytes); });
        context_.check("in_device_after_timing", words(bytes), wrong(b, seed));
        // Small arrays may stay in a cache, which is faster than the memory.
        const bool beyond = bytes > 4 * backend_.properties().l2_bytes;
        report("d2d_bw", 2.0 * static_cast<double>(bytes), inner, beyond ? memory_roof(context_) : Roof{});
    }

    /// Seconds until a page has arrived and is known to have arrived.
    void latencies() {
        HostMemory host(backend_, kSmall, true);
        Fenced array(backend_, kSmall / 4);
        host.fill(3);
        fill(array, 4);
        for (bool down : {true, false}) {
            std::vector<double> walls;
            SeriesOptions options = series(true);
            options.before = [&] { walls.clear(); };
            timed(context_, options, [&](std::size_t) {
                const Time time = down ? copied(inside(array), host.place(), kSmall)
                                       : copied(host.place(), inside(array), kSmall);
                walls.push_back(time.wall);
                return time;
            });
            const std::uint64_t bad = down ? wrong(array, 3) : host.wrong(3);
            context_.check(down ? "small_to_device" : "small_to_host", words(kSmall), bad);
            const std::size_t stride = (walls.size() + options.max_reps - 1) / options.max_reps;
            std::vector<double> kept;
            for (std::size_t i = 0; i < walls.size(); i += stride) kept.push_back(walls[i]);
            context_.metric(down ? "h2d_latency" : "d2h_latency", "s", "lower", kept);
            host.poison();
        }
    }

    Context &context_;
    Backend &backend_;
    const DeviceInfo &device_;
    Handle fill_ = nullptr, verify_ = nullptr;
    std::map<std::size_t, double> seconds_;  // that one copy of a size to the device took
};

void copies(Context &context) { Copies(context).run(); }

GT_TEST("copies", copies);

}  // namespace
