// The fake Level Zero's queues, lists and events.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "damage.h"
#include "ze_objects.h"

using namespace ze;
using namespace gt_ze;
using gt_fake::is;
namespace sim = gt_sim;

namespace {

std::atomic<int> launched{0};

struct Pool {};

struct Event {
    std::mutex lock;
    std::condition_variable changed;
    bool signalled = false;
    std::uint64_t start = 0, end = 0;
};

using Step = std::function<sim::Status(sim::Stream *)>;

/// An immediate list has a stream and does at once what is appended; another one keeps it until it is executed.
struct List {
    Context *context;
    int device;
    sim::Stream *stream = nullptr;
    std::vector<Step> steps;
    bool closed = false;
};

struct CommandQueue {
    Context *context;
    int device;
    sim::Stream *stream;
};

std::uint64_t now() {
    const auto t = std::chrono::steady_clock::now().time_since_epoch();
    const double seconds = std::chrono::duration<double>(t).count();
    static std::atomic<std::uint64_t> looks{0};
    if (is("timer_1ns")) return ++looks;
    return static_cast<std::uint64_t>(gt_fake::told(seconds) * static_cast<double>(kTimer)) &
           ((1ull << kTimerBits) - 1);
}

void signal(Event *event) {
    const std::lock_guard<std::mutex> hold(event->lock);
    event->end = now();
    event->signalled = true;
    event->changed.notify_all();
}

/// Append a step between waiting for events and signalling one.
Result append(List *list, Step step, Object signals, std::uint32_t count, Object *events) {
    if (list->closed) return kInvalidArgument;
    const std::vector<Object> waits(events, events + count);
    auto *const done = static_cast<Event *>(signals);
    const Step all = [=](sim::Stream *stream) {
        for (Object one : waits) {
            if (is("lost_edge")) continue;
            auto *const event = static_cast<Event *>(one);
            const sim::Status status = sim::enqueue(stream, [event] {
                std::unique_lock<std::mutex> hold(event->lock);
                event->changed.wait(hold, [event] { return event->signalled; });
            });
            if (status) return status;
        }
        if (done) {
            // Reached as soon as it is appended, as if everything before it had been done.
            if (is("lost_event")) signal(done);
            if (const sim::Status status = sim::enqueue(stream, [done] { done->start = now(); })) return status;
        }
        if (step) {
            if (const sim::Status status = step(stream)) return status;
        }
        return done ? sim::enqueue(stream, [done] { signal(done); }) : sim::kSuccess;
    };
    if (!list->stream) {
        list->steps.push_back(all);
        return kSuccess;
    }
    enter(list->context, list->device);
    return result_of(all(list->stream));
}

/// Only what is shared with the host can be moved or advised upon.
bool is_shared(const void *address, std::size_t bytes) {
    sim::Kind kind = sim::Kind::kDevice;
    const sim::Where where = sim::where(reinterpret_cast<sim::Address>(address), bytes, &kind);
    return where == sim::Where::kOurs && kind == sim::Kind::kManaged;
}

}  // namespace

extern "C" {

Result zeCommandQueueCreate(Object context, Object device, const QueueDesc *desc, Object *queue) {
    if (desc->type != kCommandQueueDesc || desc->ordinal != 0 || !known(device)) return kInvalidArgument;
    const CommandQueue on{static_cast<Context *>(context), index_of(device), nullptr};
    auto made = std::make_unique<CommandQueue>(on);
    enter(made->context, made->device);
    if (const sim::Status status = sim::make_stream(&made->stream)) return result_of(status);
    return *queue = made.release(), kSuccess;
}
Result zeCommandQueueDestroy(Object object) {
    const std::unique_ptr<CommandQueue> queue(static_cast<CommandQueue *>(object));
    return result_of(sim::destroy(queue->stream));
}
Result zeCommandQueueExecuteCommandLists(Object object, std::uint32_t count, Object *lists, Object) {
    auto *const queue = static_cast<CommandQueue *>(object);
    enter(queue->context, queue->device);
    for (std::uint32_t i = 0; i < count; ++i) {
        const List *const list = static_cast<List *>(lists[i]);
        if (!list->closed) return kInvalidArgument;
        const std::size_t dropped = is("lost_node") && list->steps.size() > 2 ? list->steps.size() / 4 * 2 : ~0ull;
        for (std::size_t s = 0; s < list->steps.size(); ++s) {
            if (s == dropped) continue;
            if (const sim::Status status = list->steps[s](queue->stream)) return result_of(status);
        }
    }
    return kSuccess;
}
Result zeCommandQueueSynchronize(Object object, std::uint64_t) {
    auto *const queue = static_cast<CommandQueue *>(object);
    enter(queue->context, queue->device);
    return result_of(sim::synchronize(queue->stream));
}

Result zeCommandListCreate(Object context, Object device, const ListDesc *desc, Object *list) {
    if (desc->type != kCommandListDesc || !known(device)) return kInvalidArgument;
    return *list = new List{static_cast<Context *>(context), index_of(device), nullptr, {}, false}, kSuccess;
}
Result zeCommandListCreateImmediate(Object context, Object device, const QueueDesc *desc, Object *list) {
    if (desc->type != kCommandQueueDesc || !known(device)) return kInvalidArgument;
    auto made = std::make_unique<List>(List{static_cast<Context *>(context), index_of(device), nullptr, {}, false});
    enter(made->context, made->device);
    if (const sim::Status status = sim::make_stream(&made->stream)) return result_of(status);
    return *list = made.release(), kSuccess;
}
Result zeCommandListDestroy(Object object) {
    const std::unique_ptr<List> list(static_cast<List *>(object));
    return list->stream ? result_of(sim::destroy(list->stream)) : kSuccess;
}
Result zeCommandListClose(Object list) { return static_cast<List *>(list)->closed = true, kSuccess; }

Result zeCommandListAppendBarrier(Object list, Object signals, std::uint32_t count, Object *events) {
    return append(static_cast<List *>(list), nullptr, signals, count, events);
}
Result zeCommandListAppendLaunchKernel(Object list, Object object, const GroupCount *groups, Object signals,
                                       std::uint32_t count, Object *events) {
    const Kernel kernel = *static_cast<Kernel *>(object);
    const std::uint32_t x = groups->x;
    if (kernel.group > sim::Description::kGroup) return kInvalidGroupSize;
    ++launched;
    const Step step = [kernel, x](sim::Stream *stream) {
        std::vector<sim::Slot> slots = kernel.arguments;
        std::vector<void *> arguments;
        for (sim::Slot &slot : slots) arguments.push_back(&slot);
        return sim::launch(stream, kernel.kernel, x, kernel.group, arguments.data());
    };
    return append(static_cast<List *>(list), step, signals, count, events);
}
Result zeCommandListAppendMemoryCopy(Object list, void *to, const void *from, std::size_t bytes, Object signals,
                                     std::uint32_t count, Object *events) {
    const auto into = reinterpret_cast<sim::Address>(to), out_of = reinterpret_cast<sim::Address>(from);
    const Step step = [=](sim::Stream *stream) { return sim::copy(stream, into, out_of, bytes); };
    return append(static_cast<List *>(list), step, signals, count, events);
}
Result zeCommandListAppendMemoryPrefetch(Object list, const void *address, std::size_t bytes) {
    if (!is_shared(address, bytes)) return kInvalidArgument;
    const auto at = reinterpret_cast<sim::Address>(address);
    const Step step = [=](sim::Stream *stream) { return sim::prefetch(stream, at, bytes, true); };
    return append(static_cast<List *>(list), step, nullptr, 0, nullptr);
}
Result zeCommandListAppendMemAdvise(Object list, Object device, const void *address, std::size_t bytes,
                                    std::uint32_t advice) {
    if (!known(device) || !is_shared(address, bytes)) return kInvalidArgument;
    if (advice != kAdviseHere && advice != kAdviseHereNoMore) return kUnsupportedFeature;
    return append(static_cast<List *>(list), nullptr, nullptr, 0, nullptr);
}

Result zeEventPoolCreate(Object, const EventPoolDesc *desc, std::uint32_t, Object *, Object *pool) {
    if (desc->type != kEventPoolDesc || desc->count == 0) return kInvalidSize;
    if (!(desc->flags & kPoolKernelTimestamp)) return kUnsupportedFeature;  // no backend asks for such a pool
    return *pool = new Pool, kSuccess;
}
Result zeEventPoolDestroy(Object pool) { return delete static_cast<Pool *>(pool), kSuccess; }
Result zeEventCreate(Object, const EventDesc *desc, Object *event) {
    if (desc->type != kEventDesc) return kInvalidArgument;
    return *event = new Event, kSuccess;
}
Result zeEventDestroy(Object event) { return delete static_cast<Event *>(event), kSuccess; }
Result zeEventHostSignal(Object event) { return signal(static_cast<Event *>(event)), kSuccess; }
Result zeEventHostReset(Object object) {
    auto *const event = static_cast<Event *>(object);
    const std::lock_guard<std::mutex> hold(event->lock);
    event->signalled = false;
    return kSuccess;
}
Result zeEventHostSynchronize(Object object, std::uint64_t) {
    if (is("hang_in_sync") && launched > 0) gt_fake::hang();
    auto *const event = static_cast<Event *>(object);
    std::unique_lock<std::mutex> hold(event->lock);
    event->changed.wait(hold, [event] { return event->signalled; });
    hold.unlock();
    sim::write_printed();
    return sim::in_use() ? result_of(sim::condition()) : kSuccess;
}
Result zeEventQueryKernelTimestamp(Object object, Timestamps *out) {
    auto *const event = static_cast<Event *>(object);
    const std::lock_guard<std::mutex> hold(event->lock);
    if (!event->signalled) return kNotReady;
    out->global_start = out->context_start = event->start;
    out->global_end = out->context_end = event->end;
    return kSuccess;
}

}  // extern "C"
