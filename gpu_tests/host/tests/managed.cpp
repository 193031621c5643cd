// Memory that host and device share under one address: does each see what the other wrote, page by page, wherever the
// page was last?
#include <cstdlib>

#include <algorithm>
#include <string>
#include <vector>

#include "../data.h"
#include "../hostmem.h"
#include "../test.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::uint32_t kMargin = 1024;        // canary words on both sides
constexpr std::uint64_t kMostWords = 16u << 20;  // 64 MiB
constexpr std::uint64_t kLeastWords = 1u << 20;
constexpr std::uint32_t kCounters = 2048, kTimes = 64;

/// Words with canaries around them, in memory that the host addresses directly.
class Shared {
  public:
    /// `system`: memory of malloc, which only some devices reach.
    Shared(Backend &backend, std::uint32_t words, bool system) : backend_(backend), words_(words), system_(system) {
        const std::size_t bytes = (std::size_t{words} + 2 * kMargin) * 4;
        if (system) {
            all_ = static_cast<std::uint32_t *>(std::malloc(bytes));
        } else {
            buffer_ = backend.alloc(bytes, Memory::kManaged);
            all_ = static_cast<std::uint32_t *>(backend.address(buffer_));
        }
        if (!all_) throw ApiFailure("shared memory has no address in this process");
        for (std::uint32_t i = 0; i < kMargin; ++i) {
            all_[i] = canary(i);
            all_[kMargin + words + i] = canary(i + 1);
        }
    }
    ~Shared() {
        if (system_) std::free(all_);
        else backend_.free(buffer_);
    }
    Shared(const Shared &) = delete;
    Shared &operator=(const Shared &) = delete;

    Handle buffer() const { return buffer_; }
    std::uint32_t *words() { return all_ + kMargin; }
    std::uint32_t size() const { return words_; }
    Arg arg() const { return system_ ? Arg::ptr(all_) : Arg::mem(buffer_); }
    std::uint64_t broken() const {
        std::uint64_t bad = 0;
        for (std::uint32_t i = 0; i < kMargin; ++i) {
            bad += all_[i] != canary(i);
            bad += all_[kMargin + words_ + i] != canary(i + 1);
        }
        return bad;
    }

  private:
    Backend &backend_;
    std::uint32_t words_;
    bool system_;
    Handle buffer_ = nullptr;
    std::uint32_t *all_ = nullptr;
};

class Managed {
  public:
    explicit Managed(Context &context) : context_(context), backend_(context.backend) {
        context.open_device();
        properties_ = backend_.properties();
        context.require(properties_.managed || properties_.system_memory, "memory that it shares with the host");
        const Handle module = context.module("managed");
        turn_ = backend_.kernel(module, "gt_turn");
        count_ = backend_.kernel(module, "gt_count");
    }

    void run() {
        if (properties_.managed) {
            ping_pong("managed", false, false, 0.35);
            ping_pong("prefetched", false, true, 0.25);
        } else {
            context_.skipped("managed", "the device has no managed memory");
        }
        if (properties_.managed && properties_.concurrent_managed) together(false);
        else context_.skipped("concurrent counters", "host and device may not touch managed memory at the same time");
        if (properties_.system_memory) ping_pong("system", true, false, 0.25);
        else context_.skipped("system memory", "kernels may not follow every pointer of the process");
    }

  private:
    /// Host and device change every word in turn; at each turn the host sees every word that the device left.
    void ping_pong(const std::string &name, bool system, bool prefetch, double share) {
        context_.phase(name.c_str());
        const double until = context_.elapsed() + share * context_.options.budget;
        const std::uint64_t most =
            std::min<std::uint64_t>({kMostWords, context_.device().mem_bytes / 32, host_room() / 32});
        const std::uint32_t n = static_cast<std::uint32_t>(
                                    std::min<std::uint64_t>(most, context_.options.budget < 2.0 ? kLeastWords : most)) |
                                1u;
        Shared shared(backend_, n, system);
        std::uint32_t *words = shared.words();
        for (std::uint32_t i = 0; i < n; ++i) words[i] = mix(i);
        std::vector<double> rates;
        std::uint64_t checked = 0, bad = 0;
        std::uint32_t turn = 1;
        for (; turn < 4 || (turn < 200 && context_.elapsed() < until); ++turn) {
            // The device: a page fault for each page, or a migration beforehand.
            if (prefetch) backend_.prefetch(shared.buffer(), true);
            const double before = monotonic_seconds();
            backend_.launch(turn_, n, kGroup, {Arg::u32(n), shared.arg(), Arg::u32(kMargin), Arg::u32(turn)});
            rates.push_back(4.0 * n / (monotonic_seconds() - before));
            if (prefetch) backend_.prefetch(shared.buffer(), false);
            // The host: what it finds, and what it leaves.
            for (std::uint32_t i = 0; i < n; ++i) {
                bad += words[i] != mix(mix(i + 977u * (turn - 1)) + turn);
                words[i] = mix(i + 977u * turn);
            }
            checked += n;
        }
        const std::uint64_t broken = shared.broken();
        context_.check(name + "_ping_pong", checked, bad,
                       std::to_string(turn - 1) + " turns of " + std::to_string(n) + " words");
        context_.check(name + "_canaries", 2 * kMargin, broken);
        if (bad == 0) context_.metric(name + "_bw", "B/s", "higher", rates);
    }

    /// Both count at the same time, in words that lie side by side: no count of either may be lost.
    void together(bool system) {
        context_.phase("count together");
        Shared shared(backend_, 2 * kCounters, system);
        std::uint32_t *words = shared.words();
        std::fill(words, words + 2 * kCounters, 0u);
        const Handle queue = backend_.queue();
        std::uint32_t launches = 0;
        for (; launches < 8; ++launches) {
            backend_.enqueue(queue, count_, kCounters, kGroup,
                             {Arg::u32(kCounters), shared.arg(), Arg::u32(kMargin), Arg::u32(kTimes)});
        }
        for (std::uint32_t t = 0; t < kTimes; ++t) {
            for (std::uint32_t i = 0; i < kCounters; ++i) __atomic_fetch_add(words + 2 * i, 1u, __ATOMIC_SEQ_CST);
        }
        backend_.finish(queue);
        backend_.free_queue(queue);
        std::uint64_t bad = 0;
        for (std::uint32_t i = 0; i < kCounters; ++i) {
            bad += words[2 * i] != kTimes;
            bad += words[2 * i + 1] != kTimes * launches;
        }
        context_.check("counted_together", 2 * kCounters, bad + shared.broken());
    }

    Context &context_;
    Backend &backend_;
    Properties properties_;
    Handle turn_ = nullptr, count_ = nullptr;
};

void managed(Context &context) { Managed(context).run(); }

GT_TEST("managed", managed);

}  // namespace
