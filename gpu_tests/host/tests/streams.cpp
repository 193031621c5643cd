// Queues, events, calls into the host and graphs: is each kept order really kept, and each other one free?
//
// Work is laid out so that a single lost edge shows. What a node computes depends on its predecessors, and before a
// chain may run its head is held shut by a call into the host: a node that does not wait runs on poison, early.
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <memory>

#include "../series.h"
#include "streams_work.h"

namespace {

using namespace gt;

constexpr std::size_t kGroup = 64;
constexpr std::size_t kQueues = 64, kQueuesOfCpu = 16;
constexpr std::size_t kLinks = 24;            // of one in-order chain
constexpr std::size_t kJoined = 8;            // queues that one node waits for
constexpr std::size_t kOverlapped = 4;        // few enough that every GPU has hardware queues for them

struct Callback {
    const std::uint32_t *word;  // host memory that the queue filled just before
    std::vector<std::uint32_t> *seen;
    static void take(void *self) {
        const Callback &call = *static_cast<Callback *>(self);
        call.seen->push_back(*call.word);
    }
};

class Streams {
  public:
    explicit Streams(Context &context) : context_(context), backend_(context.backend) {
        const bool cpu = context.open_device().kind == "cpu-runtime";
        const Handle module = context.module("streams");
        node_ = backend_.kernel(module, "gt_node");
        link_ = backend_.kernel(module, "gt_link");
        properties_ = backend_.properties();
        make_queues(cpu ? kQueuesOfCpu : kQueues);
        calibrate();
    }

    void run() {
        const double until = context_.elapsed() + context_.options.budget;
        in_order();
        if (properties_.callbacks) {
            edges();
            joins();
            callbacks();
        } else {
            context_.skipped("held edges", "this API has no calls into the host");
        }
        if (properties_.graphs) graphs();
        else context_.skipped("graphs", "this API has no graphs");
        if (properties_.priorities) priorities();
        else context_.skipped("priorities", "this device has no queue priorities");
        random_graph(until);
        if (context_.first_failure().empty()) overlap();
    }

  private:
    void make_queues(std::size_t count) {
        context_.phase("make queues");
        std::vector<double> rates;
        for (int pass = 0; pass < 3; ++pass) {
            for (Handle queue : queues_) backend_.free_queue(queue);
            queues_.clear();
            const double before = monotonic_seconds();
            for (std::size_t q = 0; q < count; ++q) queues_.push_back(backend_.queue());
            rates.push_back(static_cast<double>(count) / std::max(monotonic_seconds() - before, 1e-9));
        }
        context_.metric("queue_rate", "1/s", "higher", rates);
    }

    /// How many rounds take about a millisecond, and how long a chain through all queues takes.
    void calibrate() {
        context_.phase("calibrate");
        Slots slots(backend_, 2);
        rounds_ = 1000;
        // The first launch of a kernel may compile it.
        backend_.launch(link_, kSlotWords, kGroup, slots.link(0, 1, rounds_));
        backend_.launch(node_, kSlotWords, kGroup, slots.node(1, 0, 1, 1, rounds_));
        for (int attempt = 0; attempt < 12; ++attempt) {
            const double before = monotonic_seconds();
            backend_.launch(link_, kSlotWords, kGroup, slots.link(0, 2, rounds_));
            const double took = monotonic_seconds() - before;
            if (took > 1e-3 || rounds_ > 1u << 26) break;
            rounds_ *= 2;
        }
        const Guarded::Bad bad = slots.verify();
        context_.check("one_queue", 2 * kSlotWords, bad.payload + bad.canaries);
    }

    void finish() {
        for (Handle queue : queues_) backend_.finish(queue);
    }

    void report(const char *name, Slots &slots, std::uint64_t things) {
        const Guarded::Bad bad = slots.verify();
        const std::uint64_t words = bad.payload + bad.canaries;
        context_.check(name, things, std::min(words, things),
                       words ? std::to_string(words) + " words, first in slot " + std::to_string(bad.first / kStride)
                             : "");
    }

    /// Every queue runs a chain of its own, all at once; a link that is lost or overtakes another changes its end.
    void in_order() {
        context_.phase("chains in queues");
        Slots slots(backend_, queues_.size());
        for (std::uint32_t l = 0; l < kLinks; ++l) {
            for (std::size_t q = 0; q < queues_.size(); ++q) {
                // Slow and quick links in turn, so that one that need not wait is done first.
                const std::uint32_t rounds = (l + q) % 3 == 0 ? rounds_ / 8 : 1;
                backend_.enqueue(queues_[q], link_, kSlotWords, kGroup,
                                 slots.link(q, mix(static_cast<std::uint32_t>(q) << 8 | l), rounds));
            }
        }
        finish();
        report("in_order_chains", slots, kLinks * queues_.size());
    }

    /// Enqueue by `lay(gate)` with a closed gate, leave what needs not wait time to run, then open it.
    template <class Lay>
    void held(Lay lay) {
        // A driver's thread may stand in a gate when an error ends the test: gates live as long as the process.
        static std::deque<Gate> gates;
        Gate &gate = gates.emplace_back();
        const double before = monotonic_seconds();
        try {
            lay(gate);
        } catch (...) {
            gate.open();
            throw;
        }
        const double laid = monotonic_seconds() - before;
        const double until = monotonic_seconds() + std::min(0.01 + 3.0 * free_, 0.3) + std::min(laid, 0.1);
        while (monotonic_seconds() < until) ::usleep(500);
        gate.open();
        finish();
    }

    /// A chain through all queues by events alone. Nothing but its one edge keeps a node from running too early.
    void edges() {
        context_.phase("edges between queues");
        const std::size_t count = queues_.size();
        Slots slots(backend_, count + 1);
        const auto lay = [&](Gate *gate) {
            std::vector<Handle> events;
            if (gate) backend_.enqueue_call(queues_[0], Gate::pass, gate);
            for (std::size_t q = 0; q < count; ++q) {
                if (q > 0) backend_.wait(queues_[q], events.back());
                backend_.enqueue(queues_[q], node_, kSlotWords, kGroup,
                                 slots.node(q + 1, q, q, static_cast<std::uint32_t>(q) + 17, q % 4 == 0 ? rounds_ : 1));
                events.push_back(backend_.event());
                backend_.record(events.back(), queues_[q]);
            }
            return events;
        };
        const auto forget = [&](const std::vector<Handle> &events) {
            for (Handle event : events) backend_.free_event(event);
        };
        const double before = monotonic_seconds();
        std::vector<Handle> events = lay(nullptr);
        finish();
        free_ = monotonic_seconds() - before;
        forget(events);
        slots.clear();
        held([&](Gate &gate) { events = lay(&gate); });
        forget(events);
        report("event_edges", slots, count - 1);
    }

    /// One node that waits for several queues, of which each in turn is the only one that is late.
    void joins() {
        context_.phase("joins");
        const std::size_t count = std::min(kJoined, queues_.size() - 1);
        std::uint64_t bad = 0;
        for (std::size_t late = 0; late < count; ++late) {
            Slots slots(backend_, 2 * count + 2);
            std::vector<Handle> events;
            held([&](Gate &gate) {
                backend_.enqueue_call(queues_[late], Gate::pass, &gate);
                for (std::size_t q = 0; q < count; ++q) {
                    backend_.enqueue(queues_[q], node_, kSlotWords, kGroup,
                                     slots.node(q, 2 * count + 1, 2 * count + 1,
                                                static_cast<std::uint32_t>(q) + 99, 1));
                    events.push_back(backend_.event());
                    backend_.record(events.back(), queues_[q]);
                }
                for (Handle event : events) backend_.wait(queues_[count], event);
                for (std::size_t q = 0; q < count; ++q) {
                    backend_.enqueue(queues_[count], node_, kSlotWords, kGroup,
                                     slots.node(count + q + 1, count + q, q, static_cast<std::uint32_t>(q) + 7, 1));
                }
            });
            for (Handle event : events) backend_.free_event(event);
            const Guarded::Bad found = slots.verify();
            bad += found.payload + found.canaries != 0;
        }
        context_.check("joins", count, bad);
    }

    /// Calls into the host see what the queue had done when it got there: once each, and in order.
    void callbacks() {
        context_.phase("calls into the host");
        constexpr std::size_t kCalls = 16;
        Slots slots(backend_, 2);
        std::vector<std::uint32_t> words[2], seen[2], wanted[2];
        std::vector<std::unique_ptr<Callback>> calls;
        for (int q = 0; q < 2; ++q) {
            words[q].assign(kCalls, 0xA5A5A5A5u);
            seen[q].reserve(kCalls);
        }
        for (std::uint32_t c = 0; c < kCalls; ++c) {
            for (std::size_t q = 0; q < 2; ++q) {
                backend_.enqueue(queues_[q], link_, kSlotWords, kGroup,
                                 slots.link(q, mix(c + 1000u), c % 3 ? 1 : rounds_ / 8));
                wanted[q].push_back(slots.expected(q));
                backend_.enqueue_copy(queues_[q], Place::at(&words[q][c]),
                                      Place::in(slots.buffer(), 4u * slots.at(q)), 4);
                calls.push_back(std::make_unique<Callback>(Callback{&words[q][c], &seen[q]}));
                backend_.enqueue_call(queues_[q], Callback::take, calls.back().get());
            }
        }
        finish();
        std::uint64_t bad = 0;
        for (std::size_t q = 0; q < 2; ++q) {
            for (std::size_t c = 0; c < kCalls; ++c) bad += c >= seen[q].size() || seen[q][c] != wanted[q][c];
            bad += seen[q].size() > kCalls;
        }
        context_.check("calls_once_and_in_order", 2 * kCalls, bad,
                       std::to_string(seen[0].size() + seen[1].size()) + " calls came");
        report("work_around_calls", slots, 2 * kCalls);
    }

    /// A graph replayed is its work once more, in its order, each time.
    void graphs() {
        context_.phase("graphs");
        constexpr std::size_t kReplays = 20;
        constexpr std::uint32_t kNodes = 12;
        Slots slots(backend_, 2);
        // What is captured is not run: the expected words are made below, once for each replay.
        const auto args = [&](std::uint32_t n) {
            return std::vector<Arg>{Arg::u32(kSlotWords), Arg::mem(slots.buffer()), Arg::u32(slots.at(0)),
                                    Arg::u32(n * 7 + 1), Arg::u32(n % 3 ? 1 : 64)};
        };
        const Handle graph = backend_.graph([&](Handle queue) {
            for (std::uint32_t n = 0; n < kNodes; ++n) backend_.enqueue(queue, link_, kSlotWords, kGroup, args(n));
        });
        for (std::size_t r = 0; r < kReplays; ++r) {
            backend_.enqueue_graph(queues_[0], graph);
            for (std::uint32_t n = 0; n < kNodes; ++n) slots.link(0, n * 7 + 1, n % 3 ? 1 : 64);
        }
        backend_.finish(queues_[0]);
        backend_.free_graph(graph);
        report("graph_replays", slots, kReplays * kNodes);
    }

    /// Queues of both priorities at work at once: whoever goes first, both come to their end.
    void priorities() {
        context_.phase("priorities");
        Slots slots(backend_, 2);
        const Handle usual = backend_.queue(0), urgent = backend_.queue(1);
        for (std::uint32_t l = 0; l < kLinks; ++l) {
            backend_.enqueue(usual, link_, kSlotWords, kGroup, slots.link(0, l + 5, rounds_ / 4));
            backend_.enqueue(urgent, link_, kSlotWords, kGroup, slots.link(1, l + 6, 1));
        }
        backend_.finish(urgent);
        backend_.finish(usual);
        backend_.free_queue(usual);
        backend_.free_queue(urgent);
        report("priorities", slots, 2 * kLinks);
    }

    /// Graphs of random shape over all queues, until the budget is used up.
    void random_graph(double until) {
        context_.phase("random graphs");
        const std::size_t count = queues_.size(), nodes = 4 * count;
        std::uint64_t graphs = 0, bad = 0;
        Slots slots(backend_, nodes + 1);
        do {
            const std::uint32_t salt = static_cast<std::uint32_t>(graphs) * 7919u;
            std::vector<Handle> events(nodes + 1, nullptr);
            std::vector<std::size_t> queue_of(nodes + 1, 0);
            slots.clear();
            for (std::size_t n = 1; n <= nodes; ++n) {
                const std::uint32_t dice = mix(salt + static_cast<std::uint32_t>(n));
                const std::size_t a = dice % n, b = (dice >> 8) % n, q = (dice >> 16) % count;
                queue_of[n] = q;
                for (std::size_t before : {a, b}) {
                    if (before > 0 && queue_of[before] != q) backend_.wait(queues_[q], events[before]);
                }
                backend_.enqueue(queues_[q], node_, kSlotWords, kGroup,
                                 slots.node(n, a, b, dice, dice % 16 == 0 ? rounds_ / 4 : 1));
                events[n] = backend_.event();
                backend_.record(events[n], queues_[q]);
            }
            finish();
            for (Handle event : events) {
                if (event) backend_.free_event(event);
            }
            const Guarded::Bad found = slots.verify();
            bad += found.payload + found.canaries != 0;
            ++graphs;
        } while (context_.elapsed() < until && graphs < 500);
        context_.check("random_graphs", graphs, bad,
                       std::to_string(nodes) + " nodes on " + std::to_string(count) + " queues");
    }

    /// How much of the best possible several queues gain over one: 1 when they run side by side.
    void overlap() {
        context_.phase("overlap");
        Slots slots(backend_, kOverlapped);
        const auto spread = [&](std::size_t queues) {
            const double before = monotonic_seconds();
            for (std::size_t k = 0; k < kOverlapped; ++k) {
                backend_.enqueue(queues_[k % queues], link_, kGroup, kGroup,
                                 {Arg::u32(kGroup), Arg::mem(slots.buffer()), Arg::u32(slots.at(k)), Arg::u32(1),
                                  Arg::u32(4 * rounds_)});
            }
            for (std::size_t q = 0; q < queues; ++q) backend_.finish(queues_[q]);
            return monotonic_seconds() - before;
        };
        const double side_by_side = static_cast<double>(
            std::max<std::size_t>(1, std::min<std::size_t>(kOverlapped, context_.device().compute_units)));
        spread(1), spread(kOverlapped);
        std::vector<double> gains;
        for (int pass = 0; pass < 5; ++pass) gains.push_back(spread(1) / spread(kOverlapped) / side_by_side);
        context_.metric("queue_overlap", "1", "higher", gains);
    }

    Context &context_;
    Backend &backend_;
    Properties properties_;
    Handle node_ = nullptr, link_ = nullptr;
    std::vector<Handle> queues_;
    std::uint32_t rounds_ = 1000;
    double free_ = 0.0;  // seconds of a chain through all queues that nothing holds back
};

void streams(Context &context) { Streams(context).run(); }

GT_TEST("streams", streams);

}  // namespace
