// All the memory that there is: does every word keep what is written to it, is too much an error, does it all come
// back?
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "../data.h"
#include "../hostmem.h"
#include "../test.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::uint64_t kMiB = 1u << 20;
constexpr std::uint64_t kChunk = 1024 * kMiB, kFirst = 64 * kMiB;  // bytes allocated at once; of the first piece
constexpr std::uint64_t kTolerance = 64 * kMiB;                    // of memory that comes back
constexpr double kPatience = 12.0;  // seconds: Intel's driver keeps what was freed for 10, for the next allocation
constexpr std::uint32_t kWordsAnItem = 64;
constexpr int kPatterns = 3;                                       // address, inverse, hash
constexpr std::uint32_t kPieces = 1000, kFewestPieces = 100, kLive = 48;

/// The same function as on the device.
std::uint64_t walk_word(std::uint64_t number, std::uint32_t pattern) {
    if (pattern == 0) return number;
    if (pattern == 1) return ~number;
    number += 0x9E3779B97F4A7C15ull * pattern;
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ull;
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBull;
    return number ^ (number >> 31);
}

/// One allocation and the number of its first word.
struct Piece {
    Handle buffer;
    std::uint32_t words;
    std::uint64_t base;
    std::uint32_t pattern;
};

struct Wrong {
    std::uint64_t words = 0;
    std::string where;
};

class Walk {
  public:
    explicit Walk(Context &context) : context_(context), backend_(context.backend) {
        context.open_device();
        const Handle module = context.module("memory_walk");
        write_ = backend_.kernel(module, "gt_walk_write");
        check_ = backend_.kernel(module, "gt_walk_check");
        result_ = backend_.alloc(sizeof(Found));
        properties_ = backend_.properties();
    }

    void run() {
        warm_up();
        const std::uint64_t before = properties_.memory_info ? backend_.memory().free : 0;
        const std::uint64_t resident_before = resident_now();
        too_much();
        random_pieces();
        everything();
        backend_.finish(nullptr);
        if (properties_.memory_info) {
            const std::uint64_t lost = lost_since(before);
            context_.check("device_memory_returns", 1, lost > kTolerance, std::to_string(lost) + " bytes are missing");
        }
        if (context_.device().kind != "gpu") {
            // Where the device's memory is this process's, what is not given back stays with the process.
            const std::uint64_t after = resident_now();
            const std::uint64_t lost = after > resident_before ? after - resident_before : 0;
            context_.check("host_memory_returns", 1, lost > kTolerance,
                           std::to_string(lost) + " bytes more than before");
        }
    }

  private:
    struct Found {
        std::uint32_t looked, bad, first;
    };

    /// What the allocator keeps for the next one is no leak.
    static std::uint64_t resident_now() {
        ::malloc_trim(0);
        return resident();
    }

    /// What is missing of the device's free memory, once the driver has had the time to give it back.
    std::uint64_t lost_since(std::uint64_t before) {
        context_.phase("wait for memory");
        const double until = monotonic_seconds() + kPatience;
        while (true) {
            const std::uint64_t after = backend_.memory().free;
            const std::uint64_t lost = before > after ? before - after : 0;
            if (lost <= kTolerance || monotonic_seconds() > until) return lost;
            ::usleep(100000);
        }
    }

    static std::uint32_t items(std::uint32_t words) { return std::max(1u, words / kWordsAnItem); }

    Piece piece(std::uint64_t bytes, std::uint64_t base, std::uint32_t pattern) {
        const std::uint32_t words = static_cast<std::uint32_t>(bytes / 8);
        return {backend_.alloc(std::size_t{words} * 8), words, base, pattern};
    }

    void write(const Piece &p) {
        const std::uint32_t n = items(p.words);
        backend_.launch(
            write_, n, kGroup,
            {Arg::u32(n), Arg::mem(p.buffer), Arg::u32(p.words), Arg::u32(n), Arg::u64(p.base), Arg::u32(p.pattern)});
    }

    /// Every word on the device; the first, the last and some others with the host's own eyes.
    void verify(const Piece &p, Wrong &wrong) {
        const std::uint32_t n = items(p.words);
        Found found{0, 0, ~0u};
        backend_.write(result_, &found, sizeof found);
        backend_.launch(check_, n, kGroup,
                        {Arg::u32(n), Arg::mem(p.buffer), Arg::u32(p.words), Arg::u32(n), Arg::u64(p.base),
                         Arg::u32(p.pattern), Arg::mem(result_)});
        found = {~0u, ~0u, 0u};
        backend_.read(result_, &found, sizeof found);
        std::uint64_t bad = found.bad;
        if (found.looked != p.words) bad += std::max(found.looked, p.words) - std::min(found.looked, p.words);
        for (std::uint32_t look = 0; look < 4; ++look) {
            const std::uint32_t w = look == 0 ? 0 : look == 1 ? p.words - 1 : mix(p.words + look) % p.words;
            std::uint64_t word = ~walk_word(p.base + w, p.pattern);
            backend_.read(p.buffer, &word, 8, std::size_t{w} * 8);
            bad += word != walk_word(p.base + w, p.pattern);
        }
        if (bad && wrong.words == 0) {
            wrong.where = "pattern " + std::to_string(p.pattern) + ", allocation of " + std::to_string(p.words) +
                          " words, " + std::to_string(found.looked) + " looked at, first wrong " +
                          std::to_string(found.first);
        }
        wrong.words += bad;
    }

    /// Both kernels compiled and all that a driver allocates once is allocated, before memory is counted.
    void warm_up() {
        context_.phase("warm up");
        Wrong wrong;
        const Piece p = piece(kMiB, 0, 2);
        write(p);
        verify(p, wrong);
        backend_.free(p.buffer);
        std::uint64_t words = p.words;
        // Seconds to write and check one byte, overheads included: on a slow machine the walk is a short one.
        for (std::uint64_t bytes = kMiB;; bytes *= 4) {
            const Piece larger = piece(bytes, 0, 3);
            const double before = monotonic_seconds();
            write(larger);
            verify(larger, wrong);
            const double took = monotonic_seconds() - before;
            words += larger.words;
            seconds_a_byte_ = took / static_cast<double>(bytes);
            backend_.free(larger.buffer);
            if (bytes >= kFirst || took > 0.01 * context_.options.budget) break;
        }
        context_.check("one_piece", words, wrong.words, wrong.where);
    }

    /// An allocation that cannot be had is refused as one, and the next small one works.
    void too_much() {
        context_.phase("allocate too much");
        const std::uint64_t impossible = std::max<std::uint64_t>(context_.device().mem_bytes, kChunk) * 8;
        std::string detail = "it was granted";
        bool refused = false;
        try {
            const Handle buffer = backend_.alloc(impossible);
            backend_.free(buffer);
        } catch (const ApiFailure &e) {
            refused = e.cause == Cause::kOutOfMemory;
            detail = e.what();
        }
        context_.check("too_much_is_refused", 1, !refused, std::to_string(impossible) + " bytes: " + detail);
        Wrong wrong;
        const Piece p = piece(kMiB, 7, 2);
        write(p);
        verify(p, wrong);
        backend_.free(p.buffer);
        context_.check("works_after_refusal", p.words, wrong.words, wrong.where);
    }

    /// Pieces of all sizes come and go in any order; each must still hold its own when it goes.
    void random_pieces() {
        context_.phase("random pieces");
        const double until = context_.elapsed() + 0.4 * context_.options.budget;
        const std::uint64_t most = std::min<std::uint64_t>(limit() / kLive, 4 * kMiB);
        std::vector<Piece> live;
        Wrong wrong;
        std::uint64_t words = 0;
        std::uint32_t made = 0;
        const auto drop = [&](std::size_t place) {
            verify(live[place], wrong);
            words += live[place].words;
            backend_.free(live[place].buffer);
            live.erase(live.begin() + static_cast<std::ptrdiff_t>(place));
        };
        while (made < kPieces && (made < kFewestPieces || context_.elapsed() < until)) {
            const std::uint32_t dice = mix(made + 0x5A1Eu);
            if (live.size() == kLive || (!live.empty() && dice % 5 < 2)) {
                drop((dice >> 8) % live.size());
            }
            // As many small ones as large ones: sizes of equal logarithm are equally likely.
            const std::uint64_t bytes =
                std::max<std::uint64_t>(4096, most >> (dice >> 16) % 10) + (dice >> 20) % 512 * 8;
            live.push_back(piece(bytes, std::uint64_t{made} << 32, 2 + made));
            write(live.back());
            ++made;
        }
        while (!live.empty()) drop(live.size() - 1);
        context_.check("random_pieces", words, wrong.words,
                       wrong.words ? wrong.where : std::to_string(made) + " allocations");
    }

    /// What may be taken at once: nearly all that is free on a GPU, and never so much that the host runs out.
    std::uint64_t limit() {
        const std::uint64_t available = host_room();
        const std::uint64_t modest = std::min(context_.device().mem_bytes / 4, available / 4);
        if (context_.device().kind == "cpu-runtime" || !properties_.memory_info) return modest;
        const std::uint64_t most = backend_.memory().free / 100 * 95;
        return shares_host_memory() ? std::min(most, available / 2) : most;
    }

    /// Whether the device's memory is the host's (an integrated GPU): then taking it takes it from everybody.
    bool shares_host_memory() {
        if (shared_ < 0) {
            const std::uint64_t size = std::min<std::uint64_t>(4 * kFirst, backend_.memory().free / 4);
            const std::uint64_t before = host_available();
            const Piece p = piece(size, 0, 2);
            write(p);
            const std::uint64_t after = host_available();
            backend_.free(p.buffer);
            shared_ = before > after && before - after > size / 2;
        }
        return shared_ == 1;
    }

    void everything() {
        context_.phase("allocate all");
        const std::uint64_t all = limit();
        // Three patterns are written and checked, and making a page costs more than writing it.
        const double afford = 0.5 * context_.options.budget / (seconds_a_byte_ * kPatterns * 1.5);
        const std::uint64_t target = std::min(all, std::max<std::uint64_t>(static_cast<std::uint64_t>(afford), kFirst));
        std::vector<Piece> pieces;
        std::uint64_t taken = 0;
        while (taken < target) {
            const std::uint64_t bytes =
                std::min({kChunk, target - taken, std::max<std::uint64_t>(taken, kFirst)}) / 8 * 8;
            if (bytes < 4096) break;
            try {
                pieces.push_back(piece(bytes, taken / 8, 0));
            } catch (const ApiFailure &e) {
                // What is free need not be free in one piece; but an error other than this one is none of memory's.
                if (e.cause != Cause::kOutOfMemory || taken < target / 4 * 3) throw;
                break;
            }
            taken += bytes;
        }
        std::vector<double> rates;
        Wrong wrong;
        std::uint64_t words = 0;
        for (std::uint32_t pattern = 0; pattern < kPatterns; ++pattern) {
            context_.phase("walk");
            const double before = monotonic_seconds();
            // All are written before the first is checked: memory that is there twice shows.
            for (Piece &p : pieces) {
                p.pattern = pattern;
                write(p);
            }
            for (const Piece &p : pieces) {
                verify(p, wrong);
                words += p.words;
            }
            rates.push_back(2.0 * static_cast<double>(taken) / (monotonic_seconds() - before));
        }
        if (taken >= all / 8 * 7) exhaust(pieces);
        for (const Piece &p : pieces) backend_.free(p.buffer);
        char share[120];
        std::snprintf(share, sizeof share, "%.0f MiB, %.0f %% of what could be taken",
                      static_cast<double>(taken) / kMiB,
                      1e2 * static_cast<double>(taken) / static_cast<double>(std::max<std::uint64_t>(all, 1)));
        context_.check("every_word", words, wrong.words, wrong.words ? wrong.where : share);
        if (wrong.words == 0) context_.metric("walk_bw", "B/s", "higher", rates);
    }

    /// With nearly all taken, the last allocations must be refused in good order, and what is held must not suffer.
    void exhaust(std::vector<Piece> &pieces) {
        if (context_.device().kind == "cpu-runtime" || !properties_.memory_info || shares_host_memory()) return;
        context_.phase("use up memory");
        const std::uint64_t step = std::max<std::uint64_t>(context_.device().mem_bytes / 64, kMiB);
        std::string detail;
        bool refused = false, as_memory = false;
        for (int more = 0; more < 32 && !refused; ++more) {
            try {
                pieces.push_back(piece(std::min(step, kChunk), 0, 2));
            } catch (const ApiFailure &e) {
                refused = true;
                as_memory = e.cause == Cause::kOutOfMemory;
                detail = e.what();
            }
        }
        if (!refused) {
            context_.skipped("use up memory", "the driver goes on allocating beyond the device's memory");
            return;
        }
        Wrong wrong;
        verify(pieces.front(), wrong);
        context_.check("used_up_is_out_of_memory", 1, !as_memory || wrong.words, detail);
    }

    Context &context_;
    Backend &backend_;
    Properties properties_;
    Handle write_ = nullptr, check_ = nullptr, result_ = nullptr;
    double seconds_a_byte_ = 1e-9;
    int shared_ = -1;
};

void memory_walk(Context &context) { Walk(context).run(); }

GT_TEST("memory_walk", memory_walk);

}  // namespace
