// What it costs to start work, whether work is done in the order in which it was given, and whether the times that the
// device gives for it are in that order, too.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "../data.h"
#include "../series.h"

namespace {

using namespace gt;

constexpr std::uint32_t kElements = 33;  // the last group is not full
constexpr std::size_t kGroup = 32;
constexpr std::size_t kItems = 64;
constexpr std::uint32_t kInOrder = 200;  // launches in one go
constexpr std::uint32_t kNodes = 64;     // launches of the graph
constexpr std::size_t kIntervals = 24;   // between events
constexpr double kBatchSeconds = 0.005, kWorkSeconds = 0.002;
constexpr std::uint32_t kMostBatch = 1000, kMostRounds = 1u << 24;
constexpr int kTries = 3;

std::uint32_t step(std::uint32_t launch) { return mix(launch + 0x51ED270Bu); }

/// The state that the kernels work on, on the device and as it must be.
class Chain {
  public:
    explicit Chain(Backend &backend) : device_(backend, kElements, 5), state_(kElements) {
        for (std::uint32_t i = 0; i < kElements; ++i) state_[i] = mix(i + 77);
        device_.fill([&](std::uint32_t i) { return state_[i]; });
    }

    std::vector<Arg> args(std::uint32_t last) const {
        return {Arg::u32(kElements), Arg::mem(device_.buffer()), Arg::u32(device_.first()), Arg::u32(last)};
    }

    void link(std::uint32_t by) {
        for (std::uint32_t i = 0; i < kElements; ++i) state_[i] = state_[i] * 1664525u + (by ^ i);
    }

    /// All rounds at once: doing x -> a x + c twice is x -> a^2 x + (a + 1) c.
    void work(std::uint32_t rounds) {
        std::uint32_t a = 1, c = 0, power = 1664525u, sum = 1013904223u;
        for (; rounds != 0; rounds >>= 1) {
            if (rounds & 1) a *= power, c = c * power + sum;
            sum *= power + 1;
            power *= power;
        }
        for (std::uint32_t &x : state_) x = x * a + c;
    }

    void check(Context &context, const std::string &name, std::uint64_t launches) {
        const Guarded::Bad bad = device_.verify([&](std::uint32_t i) { return state_[i]; });
        context.check(name, kElements * launches, bad.payload,
                      bad.payload ? "after " + std::to_string(launches) + " launches the chain is another" : "");
        context.check(name + "_canaries", 2 * kCanaryWords, bad.canaries);
    }

  private:
    Guarded device_;
    std::vector<std::uint32_t> state_;
};

class Launch {
  public:
    explicit Launch(Context &context) : context_(context), backend_(context.backend) {
        context.open_device();
        const Handle module = context.module("launch");
        link_ = backend_.kernel(module, "gt_launch_link");
        work_ = backend_.kernel(module, "gt_launch_work");
    }

    void run() {
        in_order();
        if (!context_.first_failure().empty()) return;
        queued();
        round_trip();
        events();
        graph();
    }

  private:
    void enqueue(Chain &chain, Handle queue, std::uint32_t by) {
        backend_.enqueue(queue, link_, kItems, kGroup, chain.args(by));
        chain.link(by);
    }

    /// Many launches without waiting between them, each with another argument.
    void in_order() {
        context_.phase("launch in order");
        Chain chain(backend_);
        for (std::uint32_t i = 0; i < kInOrder; ++i) enqueue(chain, nullptr, step(i));
        backend_.finish(nullptr);
        chain.check(context_, "launches_in_order", kInOrder);
    }

    SeriesOptions short_series() const {
        SeriesOptions options;
        options.max_seconds = std::max(0.2, 0.1 * context_.options.budget);
        return options;
    }

    /// Seconds a launch when nobody waits for any but the last of a batch.
    void queued() {
        Chain chain(backend_);
        std::uint32_t launches = 0;
        std::uint32_t batch = 10;
        const auto act = [&] {
            const double before = monotonic_seconds();
            for (std::uint32_t i = 0; i < batch; ++i) {
                backend_.enqueue(nullptr, link_, kItems, kGroup, chain.args(step(launches + i)));
            }
            backend_.finish(nullptr);
            const double seconds = monotonic_seconds() - before;
            for (std::uint32_t i = 0; i < batch; ++i) chain.link(step(launches + i));
            launches += batch;
            return seconds;
        };
        context_.phase("calibrate");
        act();
        for (double seconds = act(); seconds < kBatchSeconds && batch < kMostBatch; seconds = act()) {
            batch = std::min(kMostBatch, batch * 2);
        }
        const Series series = timed(context_, short_series(), [&](std::size_t) {
            const double seconds = act();
            return Time{seconds, seconds};
        });
        chain.check(context_, "queued_launches", launches);
        std::vector<double> each = series.device;
        for (double &seconds : each) seconds /= batch;
        context_.metric("launch_queued", "s", "lower", each);
    }

    /// Seconds until one launch has been given, done and waited for.
    void round_trip() {
        Chain chain(backend_);
        std::uint32_t launches = 0;
        std::vector<double> walls;
        SeriesOptions options = short_series();
        options.overhead = true;
        options.before = [&] { walls.clear(); };
        timed(context_, options, [&](std::size_t) {
            const std::uint32_t by = step(launches++);
            const Time time = on_wall([&] { return backend_.launch(link_, kItems, kGroup, chain.args(by)); });
            chain.link(by);
            walls.push_back(time.wall);
            return time;
        });
        chain.check(context_, "launches_waited_for", launches);
        // As many of them as a series keeps, evenly.
        const std::size_t stride = (walls.size() + options.max_reps - 1) / options.max_reps;
        std::vector<double> kept;
        for (std::size_t i = 0; i < walls.size(); i += stride) kept.push_back(walls[i]);
        context_.metric("launch_round_trip", "s", "lower", kept);
    }

    /// Work between events: every interval is positive, they add up, and the wall's clock agrees with them.
    void events() {
        Chain chain(backend_);
        std::uint64_t launches = 0;
        std::uint32_t rounds = 1024;
        const auto launch = [&] {
            const Time time = on_wall([&] { return backend_.launch(work_, kItems, kGroup, chain.args(rounds)); });
            chain.work(rounds);
            ++launches;
            return time;
        };
        context_.phase("calibrate");
        launch();
        while (launch().wall < kWorkSeconds && rounds < kMostRounds) rounds *= 2;
        context_.phase("events");
        std::vector<Handle> events;
        for (std::size_t i = 0; i <= kIntervals; ++i) events.push_back(backend_.event());
        for (int attempt = 1;; ++attempt) {
            const double before = monotonic_seconds();
            backend_.record(events[0], nullptr);
            for (std::size_t i = 1; i <= kIntervals; ++i) {
                backend_.enqueue(nullptr, work_, kItems, kGroup, chain.args(rounds));
                backend_.record(events[i], nullptr);
            }
            backend_.finish(nullptr);
            const double wall = monotonic_seconds() - before;
            for (std::size_t i = 1; i <= kIntervals; ++i) chain.work(rounds);
            launches += kIntervals;
            if (agree(events, wall, attempt)) break;
        }
        for (Handle event : events) backend_.free_event(event);
        SeriesOptions options;
        options.max_seconds = options.min_seconds;
        timed(context_, options, [&](std::size_t) { return launch(); });
        chain.check(context_, "work_between_events", launches);
    }

    /// Whether the wall's clock agrees; the last attempt must. The rest is checked here.
    bool agree(const std::vector<Handle> &events, double wall, int attempt) {
        std::uint64_t not_positive = 0, not_later = 0;
        double sum = 0.0, last = 0.0;
        for (std::size_t i = 1; i < events.size(); ++i) {
            const double part = backend_.between(events[i - 1], events[i]);
            const double since = backend_.between(events[0], events[i]);
            not_positive += !(part > 0.0);
            not_later += !(since > last);
            sum += part;
            last = since;
        }
        char text[160];
        std::snprintf(text, sizeof text,
                      "events %.6g s apart in all, %.6g s by their parts, %.6g s on the wall's clock", last, sum, wall);
        const double share = last / wall;
        const bool believable = share >= 0.5 && share <= 1.02;
        if (!believable && not_positive + not_later == 0 && attempt < kTries) return false;
        context_.check("event_times_positive", kIntervals, not_positive, not_positive ? text : "");
        context_.check("event_times_monotone", kIntervals, not_later, not_later ? text : "");
        // An elapsed time is a float of milliseconds with a step of about half a microsecond in some APIs.
        const double slack = 1e-3 * last + 1e-6 * kIntervals;
        const bool adds_up = sum >= last - slack && sum <= last + slack;
        context_.check("event_times_add_up", kIntervals, adds_up ? 0 : 1, adds_up ? "" : text);
        if (!believable) throw Implausible(text);
        return true;
    }

    /// The same launches as one graph, replayed: does it keep order, and what does one of its nodes cost?
    void graph() {
        if (!backend_.properties().graphs) {
            context_.skipped("graph_replay", "the API has no graphs");
            return;
        }
        context_.phase("graph");
        Chain chain(backend_);
        const Handle graph = backend_.graph([&](Handle queue) {
            for (std::uint32_t i = 0; i < kNodes; ++i) {
                backend_.enqueue(queue, link_, kItems, kGroup, chain.args(step(i)));
            }
        });
        chain.check(context_, "graph_not_yet_run", 1);
        std::uint64_t replays = 0;
        const Series series = timed(context_, short_series(), [&](std::size_t) {
            const double before = monotonic_seconds();
            backend_.enqueue_graph(nullptr, graph);
            backend_.finish(nullptr);
            const double seconds = monotonic_seconds() - before;
            for (std::uint32_t i = 0; i < kNodes; ++i) chain.link(step(i));
            ++replays;
            return Time{seconds, seconds};
        });
        chain.check(context_, "graph_replay", replays * kNodes);
        backend_.free_graph(graph);
        std::vector<double> each = series.device;
        for (double &seconds : each) seconds /= kNodes;
        context_.metric("graph_node", "s", "lower", each);
    }

    Context &context_;
    Backend &backend_;
    Handle link_ = nullptr, work_ = nullptr;
};

void launch(Context &context) { Launch(context).run(); }

GT_TEST("launch", launch);

}  // namespace
