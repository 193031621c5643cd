// Copy, read and triad over arrays far larger than the caches: exact first, then timed against the memory's roofline,
// then exact again. Kernels make and check the data, so arrays may be of any size; the host checks the checkers.
#include <algorithm>
#include <array>
#include <memory>

#include "../data.h"
#include "../roofline.h"
#include "../series.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 256;
constexpr std::size_t kSets = 2;                     // of three arrays; rotated
constexpr std::uint64_t kLeastVectors = 8u << 10;    // 128 KiB an array
constexpr std::uint64_t kMostVectors = 64u << 20;    // 1 GiB
constexpr std::uint64_t kCaches = 4;                 // an array is so many times the last cache where time allows
constexpr double kLaunchSeconds = 0.005;             // wanted length of a launch: long against its overhead
constexpr double kShare = 0.12;                      // of the budget: for each series, and for preparing its data
constexpr std::size_t kSampledWords = 1u << 20;      // the host computes anew in each verification
constexpr std::size_t kPieces = 32, kPieceWords = 4096;  // that the host fetches and compares in each verification
constexpr std::uint32_t kHash = 0x9E3779B1u;

float scale(std::size_t launch) { return launch % 3 == 0 ? 0.5f : launch % 3 == 1 ? 0.25f : 0.125f; }

struct Set {
    Set(Backend &backend, std::size_t words, std::uint32_t salt)
        : salt(salt), a(backend, words), b(backend, words), c(backend, words) {}
    std::uint32_t salt;
    float scale = 0.0f;  // of the last launch
    Fenced a, b, c;
};

struct Wrong {
    std::uint64_t words = 0, samples = 0, pieces = 0, checked_samples = 0, checked_pieces = 0;
};

class Stream {
  public:
    explicit Stream(Context &context) : context_(context), backend_(context.backend), device_(context.open_device()) {
        const Handle module = context.module("stream");
        fill_ = backend_.kernel(module, "gt_stream_fill");
        verify_ = backend_.kernel(module, "gt_stream_verify");
        copy_ = backend_.kernel(module, "gt_stream_copy");
        triad_ = backend_.kernel(module, "gt_stream_triad");
        read_ = backend_.kernel(module, "gt_stream_read");
        launches_ = std::make_unique<Guarded>(backend_, 1, 0);
        launches_->fill([](std::uint32_t) { return 0u; });
        roof_ = memory_roof(context);
    }

    void run() {
        calibrate();
        context_.phase("prepare");
        for (std::uint32_t s = 0; s < kSets; ++s) {
            sets_.push_back(std::make_unique<Set>(backend_, words(), 200 + 2 * s));
            prepare(*sets_[s]);
        }
        outs_ = std::make_unique<Fenced>(backend_, out_words());
        measure("copy", 32.0, [&](std::size_t i) { return copy(*sets_[i % kSets]); },
                [&](const std::string &name) { verify_results(name, false); });
        measure("triad", 48.0, [&](std::size_t i) { return triad(*sets_[i % kSets]); },
                [&](const std::string &name) { verify_results(name, true); });
        // The results of reading are written as well: one word an item, each of which reads 16 vectors.
        measure("read", 16.0 + 4.0 / 16.0, [&](std::size_t i) { return read(i); },
                [&](const std::string &name) { verify_read(name); });
        const std::uint32_t wanted = static_cast<std::uint32_t>(launched_);
        context_.check("every_launch_ran", launched_, launches_->verify([&](std::uint32_t) { return wanted; }).payload);
        std::uint64_t broken = outs_->broken(), arrays = 1;
        for (const auto &set : sets_) {
            for (const Fenced *array : {&set->a, &set->b, &set->c}) broken += array->broken(), ++arrays;
        }
        context_.check("canaries_intact", arrays * 2 * kCanaryWords, broken);
    }

  private:
    std::size_t words() const { return std::size_t{n_} * 4; }
    /// Items of a launch in which each takes `vectors` vectors, in whole groups: each group has a tile.
    std::size_t items(std::size_t vectors) const {
        const std::size_t tile = vectors * kGroup;
        return (n_ + tile - 1) / tile * kGroup;
    }
    std::size_t out_words() const { return items(16); }

    /// Words of one group's chunk in filling and checking, and the items for all chunks.
    std::uint32_t chunk() const {
        const std::size_t groups = std::clamp<std::size_t>(words() / (kGroup * 16), 1, 4096);
        return static_cast<std::uint32_t>((words() + groups - 1) / groups);
    }
    std::size_t checkers() const { return (words() + chunk() - 1) / chunk() * kGroup; }

    void fill(const Fenced &array, std::uint32_t salt, bool poison) {
        backend_.launch(fill_, checkers(), kGroup,
                        {Arg::u32(static_cast<std::uint32_t>(words())), Arg::mem(array.buffer()),
                         Arg::u32(array.first()), Arg::u32(chunk()), Arg::u32(salt), Arg::u32(poison)});
    }

    void prepare(Set &set) {
        fill(set.b, set.salt, false);
        fill(set.c, set.salt + 1, false);
        fill(set.a, 0, true);
    }

    Time launch(Handle kernel, std::size_t count, std::vector<Arg> args) {
        ++launched_;
        args.insert(args.begin(), Arg::u32(n_));
        args.push_back(Arg::mem(launches_->buffer()));
        args.push_back(Arg::u32(launches_->first()));
        return on_wall([&] { return backend_.launch(kernel, count, kGroup, args); });
    }

    static std::vector<Arg> arrays(std::initializer_list<const Fenced *> all) {
        std::vector<Arg> args;
        for (const Fenced *array : all) {
            args.push_back(Arg::mem(array->buffer()));
            args.push_back(Arg::u32(array->first_vector()));
        }
        return args;
    }

    Time copy(Set &set) { return launch(copy_, items(4), arrays({&set.a, &set.b})); }

    Time triad(Set &set) {
        set.scale = scale(launched_);
        std::vector<Arg> args = arrays({&set.a, &set.b, &set.c});
        args.push_back(Arg::f32(set.scale));
        return launch(triad_, items(4), args);
    }

    /// The source of the i-th reading, and its salt: the inputs of the sets in turn.
    const Fenced &source(std::size_t i) const { return i / kSets % 2 ? sets_[i % kSets]->c : sets_[i % kSets]->b; }
    std::uint32_t salt(std::size_t i) const { return sets_[i % kSets]->salt + (i / kSets % 2 ? 1 : 0); }

    Time read(std::size_t i) {
        last_read_ = i;
        std::vector<Arg> args = arrays({&source(i)});
        args.push_back(Arg::mem(outs_->buffer()));
        args.push_back(Arg::u32(outs_->first()));
        return launch(read_, items(16), args);
    }

    /// The longest arrays within memory and the budget, until they are beyond all caches and a launch is long enough.
    void calibrate() {
        context_.phase("calibrate");
        const std::uint64_t share = device_.mem_bytes / (device_.kind == "gpu" ? 2 : 4) / (kSets * 3 * 16);
        const std::uint64_t most = std::clamp<std::uint64_t>(share, 1024, kMostVectors);
        const std::uint64_t cached = kCaches * backend_.properties().l2_bytes / 16;
        std::uint64_t vectors = std::min(kLeastVectors, most);
        while (true) {
            n_ = static_cast<std::uint32_t>(vectors) | 1u;  // odd: the last tile is never full
            Set set(backend_, words(), 100);
            prepare(set);  // compiles for this size, touches the pages
            const double before = monotonic_seconds();
            prepare(set);
            const double cost = (monotonic_seconds() - before) / static_cast<double>(n_);
            copy(set);
            const double wall = std::min(copy(set).wall, copy(set).wall);
            // Data are filled once, poisoned and checked four times.
            const double afford = kShare * context_.options.budget / (cost * 3.0 * kSets);
            const std::uint64_t cap = std::min(most, static_cast<std::uint64_t>(afford));
            if ((wall >= kLaunchSeconds && vectors >= cached) || vectors >= cap) break;
            vectors = std::min(cap, vectors * 4);
        }
        if (n_ < cached) {
            context_.skipped("beyond_caches", "arrays of " + std::to_string(words() * 4) + " bytes are less than " +
                                                  std::to_string(kCaches) + " times the cache of " +
                                                  std::to_string(backend_.properties().l2_bytes) +
                                                  " bytes: more does not fit the memory or the time");
        }
    }

    template <class Act, class Verify>
    void measure(const char *name, double bytes, Act act, Verify verify) {
        if (!context_.first_failure().empty()) return;  // a rate of wrong results means nothing
        context_.phase("verify");
        poison();
        for (std::size_t i = 0; i < kSets; ++i) act(i);
        verify(std::string(name) + "_exact");
        if (!context_.first_failure().empty()) return;
        SeriesOptions options;
        options.warm_up = kSets;
        options.max_seconds = kShare * context_.options.budget;
        options.before = [&] { poison(); };  // what the timed launches must overwrite
        const Series series = timed(context_, options, act);
        context_.phase("verify again");
        verify(std::string(name) + "_exact_after_timing");
        context_.metric(std::string(name) + "_bw", "B/s", "higher", rates(bytes * n_, series.device),
                        series.wall_ratio, roof_);
    }

    void poison() {
        for (auto &set : sets_) fill(set->a, 0, true);
        std::vector<std::uint32_t> words(out_words());
        for (std::size_t i = 0; i < words.size(); ++i) words[i] = ::gt::poison(static_cast<std::uint32_t>(i));
        backend_.write(outs_->buffer(), words.data(), words.size() * 4, outs_->first() * 4);
    }

    /// Every word of the results by a kernel; that kernel's hashes by the host, for some items; and some pieces
    /// fetched.
    void verify_results(const std::string &name, bool triad) {
        Wrong wrong;
        for (const auto &set : sets_) verify_array(*set, triad ? set->scale : 0.0f, wrong);
        context_.check(name, words() * kSets, wrong.words);
        context_.check(name + "_hashes", wrong.checked_samples, wrong.samples);
        context_.check(name + "_fetched", wrong.checked_pieces, wrong.pieces);
    }

    void verify_array(const Set &set, float factor, Wrong &wrong) {
        const std::uint32_t n = static_cast<std::uint32_t>(words());
        const auto expected = [&](std::size_t place) {
            const std::uint32_t i = static_cast<std::uint32_t>(place);
            return bits(lattice(set.salt, i) + factor * lattice(set.salt + 1, i));
        };
        Guarded good(backend_, checkers(), 1), hash(backend_, checkers(), 3);
        good.poison_all();
        hash.poison_all();
        backend_.launch(verify_, checkers(), kGroup,
                        {Arg::u32(n), Arg::mem(set.a.buffer()), Arg::u32(set.a.first()), Arg::u32(chunk()),
                         Arg::u32(set.salt), Arg::u32(set.salt + 1), Arg::f32(factor), Arg::mem(good.buffer()),
                         Arg::u32(good.first()), Arg::mem(hash.buffer()), Arg::u32(hash.first())});
        const auto share = [&](std::size_t item, const auto &each) {
            const std::size_t begin = item / kGroup * chunk(), end = std::min<std::size_t>(begin + chunk(), n);
            for (std::size_t i = begin + item % kGroup; i < end; i += kGroup) each(i);
        };
        const Guarded::Bad miscounted = good.verify([&](std::uint32_t item) {
            const std::size_t begin = item / kGroup * chunk(), end = std::min<std::size_t>(begin + chunk(), n);
            const std::size_t from = begin + item % kGroup;
            return static_cast<std::uint32_t>(from < end ? (end - from + kGroup - 1) / kGroup : 0);
        });
        wrong.words += miscounted.payload;
        const std::size_t stride = std::max<std::size_t>(1, words() / kSampledWords) | 1;
        const Guarded::Bad unlike = hash.verify_some(stride, [&](std::uint32_t item) {
            std::uint32_t mixed = 0;
            share(item, [&](std::size_t i) { mixed = mixed * kHash + expected(i); });
            return mixed;
        });
        wrong.samples += unlike.payload;
        wrong.checked_samples += (checkers() + stride - 1) / stride;
        std::vector<std::uint32_t> piece;
        for (std::size_t p = 0; p < kPieces; ++p) {
            const std::size_t count = std::min(kPieceWords, words());
            const std::size_t begin = (words() - count) * p / (kPieces - 1);
            set.a.fetch(piece, begin, count);
            for (std::size_t i = 0; i < count; ++i) wrong.pieces += piece[i] != expected(begin + i);
            wrong.checked_pieces += count;
        }
    }

    /// What the last reading left: the host computes some items' hashes anew.
    void verify_read(const std::string &name) {
        const std::uint32_t stream = salt(last_read_);
        std::vector<std::uint32_t> out;
        outs_->fetch(out, 0, out_words());
        const std::size_t stride = std::max<std::size_t>(1, words() / kSampledWords) | 1;
        std::uint64_t wrong = 0, checked = 0;
        const auto one = [&](std::size_t item) {
            std::array<std::uint32_t, 4> sum{};
            for (std::size_t k = 0, i = item / kGroup * 16 * kGroup + item % kGroup; k < 16 && i < n_;
                 ++k, i += kGroup) {
                for (std::size_t part = 0; part < 4; ++part) {
                    const std::uint32_t place = static_cast<std::uint32_t>(i * 4 + part);
                    sum[part] = sum[part] * kHash + bits(lattice(stream, place));
                }
            }
            wrong += out[item] != ((sum[0] * 31 + sum[1]) * 31 + sum[2]) * 31 + sum[3];
            ++checked;
        };
        for (std::size_t item = 0; item < out.size(); item += stride) one(item);
        // The last tile is the one that is not full: all of it.
        for (std::size_t item = out.size() - kGroup; item < out.size(); ++item) one(item);
        context_.check(name, checked, wrong);
    }

    Context &context_;
    Backend &backend_;
    const DeviceInfo &device_;
    Handle fill_ = nullptr, verify_ = nullptr, copy_ = nullptr, triad_ = nullptr, read_ = nullptr;
    Roof roof_;
    std::unique_ptr<Guarded> launches_;
    std::vector<std::unique_ptr<Set>> sets_;
    std::unique_ptr<Fenced> outs_;
    std::uint32_t n_ = 0;  // vectors of an array
    std::uint64_t launched_ = 0;
    std::size_t last_read_ = 0;
};

void stream(Context &context) { Stream(context).run(); }

GT_TEST("stream", stream);

}  // namespace
