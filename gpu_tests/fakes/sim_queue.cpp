// Contexts, streams, events and graphs of the simulated GPU. Every stream has a thread of its own that does its work in
// order, so what a test does not wait for has not happened.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "damage.h"
#include "gt_cpu.h"
#include "kernel_log.h"
#include "sim.h"
#include "sim_groups.h"
#include "sim_pages.h"
#include "sim_state.h"

namespace gt_sim {

using gt_fake::is;
using gt_fake::log;
using gt_fake::logged;
using Work = std::function<void()>;

struct Context {
    int device;
    Complaint complaint;
    Reaction reaction;
    long logged = 0;  // bytes in the kernel's log when it was made
    std::atomic<int> condition{kSuccess};
    std::set<Stream *> streams;
    std::mutex lock;
    Stream *own = nullptr;
};

struct Graph {
    std::vector<Work> nodes;
};

struct Stream {
    Context *context;
    std::mutex lock;
    std::condition_variable changed;
    std::deque<Work> work;
    bool busy = false, ending = false;
    std::unique_ptr<Graph> captured;  // while it captures
    std::thread thread;

    explicit Stream(Context *of) : context(of), thread([this] { serve(); }) {}

    void serve() {
        std::unique_lock<std::mutex> hold(lock);
        while (true) {
            changed.wait(hold, [&] { return ending || !work.empty(); });
            if (work.empty()) return;
            const Work next = std::move(work.front());
            work.pop_front();
            busy = true;
            hold.unlock();
            next();
            hold.lock();
            busy = false;
            if (work.empty()) changed.notify_all();
        }
    }
};

/// One recording of an event.
struct Mark {
    std::mutex lock;
    std::condition_variable changed;
    std::atomic<bool> reached{false};
    double at = 0.0;  // seconds

    void reach() {
        const std::lock_guard<std::mutex> hold(lock);
        at = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        reached = true;
        changed.notify_all();
    }

    void await() {
        std::unique_lock<std::mutex> hold(lock);
        changed.wait(hold, [&] { return reached.load(); });
    }
};

struct Event {
    std::mutex lock;
    std::shared_ptr<Mark> mark;  // of the last recording; null: never recorded

    std::shared_ptr<Mark> last() {
        const std::lock_guard<std::mutex> hold(lock);
        return mark;
    }
    std::shared_ptr<Mark> anew() {
        const std::lock_guard<std::mutex> hold(lock);
        mark = std::make_shared<Mark>();
        return mark;
    }
};

namespace {

__thread Context *context_of_thread;
std::atomic<int> launches{0};

Stream *resolve(Stream *stream) { return stream ? stream : context_of_thread ? context_of_thread->own : nullptr; }

void fail(Context *context, int status) {
    int none = kSuccess;
    if (is("swallowed_error")) return;
    const int told = is("wrong_error") ? kUnknown : status;
    if (!context->condition.compare_exchange_strong(none, told)) return;
    log(context->complaint(bdf(context->device), status));
    if (context->reaction && told == status) context->reaction(status);
}

/// Change the launch of this number as the fault tells; whether anything of it remains.
bool distort(Launch &launch, int number) {
    if (is("lost_launch") || (is("lost_some") && number % 7 == 0)) return false;
    if (launch.arguments.empty()) return true;
    auto &n = launch.arguments[0];
    const bool full = n == Slot{launch.groups} * launch.group_size;
    if (is("last_item")) --n;
    if (is("overrun")) {
        ++n;
        if (full) ++launch.groups;  // one item more than there are elements must exist
    }
    if (is("short") && launch.groups > 1) --launch.groups;
    return true;
}

void move(Address to, Address from, std::size_t bytes) {
    static std::atomic<int> writes{0}, moves{0};
    Kind kind_to = Kind::kPinned, kind_from = Kind::kPinned;
    const bool onto = where(to, 1, &kind_to) == Where::kOurs && kind_to != Kind::kPinned;
    const bool off = where(from, 1, &kind_from) == Where::kOurs && kind_from != Kind::kPinned;
    if (is("short_copy") && ++moves % 3 == 0 && bytes >= 64) bytes -= 16;
    if (onto && !off && is("lost_write") && ++writes % 4 == 0) return;
    if (off && !onto && is("stale_read")) return;
    std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
    if (off && !onto) gt_fake::corrupt(reinterpret_cast<void *>(to), bytes);
}

}  // namespace

Status make_context(int device, Complaint complaint, Context **context, Reaction reaction) {
    if (device < 0 || device >= Description::kDevices) return kInvalidDevice;
    if (is("lasting_fault") && logged() > 0) return kUnknown;
    if (is("lost_atomic")) gt_cpu_broken = kGtCpuLosesAdds;
    if (is("low_precision")) gt_cpu_broken = kGtCpuRoundsSums;
    auto *made = new Context;
    made->device = device, made->complaint = complaint, made->reaction = reaction, made->logged = logged();
    charge(device, Description::kOfContext);
    made->own = new Stream(made);
    context_of_thread = *context = made;
    return kSuccess;
}

Status destroy(Context *context) {
    if (!context) return kInvalidContext;
    for (Stream *stream : std::set<Stream *>(context->streams)) destroy(stream);
    destroy(context->own);
    if (!is("leak_context")) {
        release_all_of(context);
        charge(context->device, -static_cast<std::int64_t>(Description::kOfContext));
    }
    if (context_of_thread == context) context_of_thread = nullptr;
    return kSuccess;  // the object stays: other threads may still name it
}

void use(Context *context) { context_of_thread = context; }
Context *in_use() { return context_of_thread; }
int device_of(const Context *context) { return context->device; }

Status condition() {
    if (!context_of_thread) return kInvalidContext;
    std::atomic<int> &condition = context_of_thread->condition;
    return static_cast<Status>(is("forgotten_error") ? condition.exchange(kSuccess) : condition.load());
}

Status make_stream(Stream **stream) {
    Context *const context = context_of_thread;
    if (!context) return kInvalidContext;
    if (const Status broken = condition()) return broken;
    *stream = new Stream(context);
    const std::lock_guard<std::mutex> hold(context->lock);
    context->streams.insert(*stream);
    return kSuccess;
}

Status destroy(Stream *stream) {
    if (!stream) return kInvalidHandle;
    {
        const std::lock_guard<std::mutex> hold(stream->context->lock);
        stream->context->streams.erase(stream);
    }
    {
        const std::lock_guard<std::mutex> hold(stream->lock);
        stream->ending = true;
        stream->changed.notify_all();
    }
    stream->thread.join();
    delete stream;
    return kSuccess;
}

Status enqueue(Stream *stream, Work work) {
    stream = resolve(stream);
    if (!stream) return kInvalidContext;
    if (const Status broken = condition()) return broken;
    const std::lock_guard<std::mutex> hold(stream->lock);
    if (stream->captured) {
        stream->captured->nodes.push_back(std::move(work));
        return kSuccess;
    }
    stream->work.push_back(std::move(work));
    stream->changed.notify_all();
    return kSuccess;
}

Status copy(Stream *stream, Address to, Address from, std::size_t bytes) {
    if (where(to, bytes) == Where::kBeyond || where(from, bytes) == Where::kBeyond) return kInvalidValue;
    Context *const context = context_of_thread;
    return enqueue(stream, [=] {
        if (context->condition == kSuccess) move(to, from, bytes);
    });
}

Status prefetch(Stream *stream, Address address, std::size_t bytes, bool to_device) {
    if (where(address, bytes) != Where::kOurs) return kInvalidValue;
    return enqueue(stream, [=] { migrate(address, bytes, to_device); });
}

Status launch(Stream *stream, const Kernel *kernel, std::uint32_t groups, std::uint32_t group_size, void **arguments) {
    if (!kernel) return kInvalidHandle;
    if (groups == 0 || group_size == 0 || group_size > Description::kGroup) return kInvalidValue;
    if (is("hang")) gt_fake::hang();
    if (is("crash")) gt_fake::crash();
    if (is("launch_error")) return kLaunchOutOfResources;
    auto work = std::make_shared<Launch>();
    work->kernel = kernel, work->groups = groups, work->group_size = group_size;
    for (std::size_t i = 0; i < kernel->arguments; ++i) {
        Slot slot = 0;
        std::memcpy(&slot, arguments[i], kernel->sizes[i]);
        work->arguments.push_back(slot);
    }
    Context *const context = context_of_thread;
    return enqueue(stream, [=] {
        if (is("spreading_fault") && logged() > context->logged) fail(context, kLaunchFailed);
        if (context->condition != kSuccess) return;
        const int number = ++launches;
        if (is("xid") && number == 1) log(context->complaint(bdf(context->device), kUnknown));
        Launch once = *work;
        if (!distort(once, number)) return;
        const std::function<void()> withhold = is("managed_stale") ? withheld_page() : nullptr;
        unmap_blocks();
        if (const int status = run(once)) fail(context, status);
        unmap_blocks();
        if (withhold) withhold();
    });
}

Status call(Stream *stream, void (*function)(void *), void *data) {
    return enqueue(stream, [=] {
        if (!is("lost_call")) function(data);
    });
}

Status synchronize(Stream *stream) {
    stream = resolve(stream);
    if (!stream) return kInvalidContext;
    if (is("hang_in_sync") && launches > 0) gt_fake::hang();
    {
        std::unique_lock<std::mutex> hold(stream->lock);
        stream->changed.wait(hold, [&] { return stream->work.empty() && !stream->busy; });
    }
    write_printed();
    return condition();
}

Status synchronize() {
    Context *const context = context_of_thread;
    if (!context) return kInvalidContext;
    std::set<Stream *> streams;
    {
        const std::lock_guard<std::mutex> hold(context->lock);
        streams = context->streams;
    }
    for (Stream *stream : streams) synchronize(stream);
    return synchronize(context->own);
}

Status make_event(Event **event) {
    if (!context_of_thread) return kInvalidContext;
    *event = new Event;
    return condition();
}

Status destroy(Event *event) {
    if (!event) return kInvalidHandle;
    delete event;
    return kSuccess;
}

Status record(Event *event, Stream *stream) {
    if (!event) return kInvalidHandle;
    Stream *const on = resolve(stream);
    if (!on) return kInvalidContext;
    if (on->captured) return kSuccess;  // one stream is captured: its order says it all
    if (const Status broken = condition()) return broken;
    const std::shared_ptr<Mark> mark = event->anew();
    if (is("lost_event")) mark->reach();  // as if everything before it had been done
    return enqueue(stream, [mark] {
        if (!mark->reached) mark->reach();
    });
}

Status wait(Stream *stream, Event *event) {
    if (!event) return kInvalidHandle;
    Stream *const on = resolve(stream);
    const std::shared_ptr<Mark> mark = event->last();
    if (!on) return kInvalidContext;
    if (!mark || on->captured || is("lost_edge")) return condition();
    return enqueue(stream, [mark] { mark->await(); });
}

Status synchronize(Event *event) {
    if (!event) return kInvalidHandle;
    if (is("hang_in_sync") && launches > 0) gt_fake::hang();
    if (const std::shared_ptr<Mark> mark = event->last()) mark->await();
    write_printed();
    return condition();
}

Status query(Event *event) {
    if (!event) return kInvalidHandle;
    const std::shared_ptr<Mark> mark = event->last();
    if (!mark) return kSuccess;
    const std::lock_guard<std::mutex> hold(mark->lock);
    return mark->reached ? condition() : kNotReady;
}

Status elapsed(Event *first, Event *second, float *milliseconds) {
    if (!first || !second) return kInvalidHandle;
    const std::shared_ptr<Mark> from = first->last(), to = second->last();
    if (!from || !to) return kInvalidHandle;
    if (query(first) == kNotReady || query(second) == kNotReady) return kNotReady;
    *milliseconds = static_cast<float>(gt_fake::told(to->at - from->at) * 1e3);
    return condition();
}

Status begin_capture(Stream *stream) {
    if (!stream) return kInvalidValue;  // the context's own stream is never captured
    if (const Status broken = condition()) return broken;
    const std::lock_guard<std::mutex> hold(stream->lock);
    if (stream->captured) return kInvalidValue;
    stream->captured = std::make_unique<Graph>();
    return kSuccess;
}

Status end_capture(Stream *stream, Graph **graph) {
    if (!stream) return kInvalidValue;
    const std::lock_guard<std::mutex> hold(stream->lock);
    if (!stream->captured) return kInvalidValue;
    *graph = stream->captured.release();
    return condition();
}

Status launch(Graph *graph, Stream *stream) {
    if (!graph) return kInvalidHandle;
    const std::vector<Work> nodes = graph->nodes;
    return enqueue(stream, [nodes] {
        const std::size_t dropped = is("lost_node") && nodes.size() > 1 ? nodes.size() / 2 : nodes.size();
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            if (i != dropped) nodes[i]();
        }
    });
}

Status copy_of(Graph *graph, Graph **copy) {
    if (!graph) return kInvalidHandle;
    *copy = new Graph{graph->nodes};
    return condition();
}

Status destroy(Graph *graph) {
    if (!graph) return kInvalidHandle;
    delete graph;
    return kSuccess;
}

}  // namespace gt_sim
