#include "ze_queues.h"

#include <memory>
#include <utility>

namespace gt {
namespace ze_driver {

using namespace ze;

namespace {

constexpr std::uint32_t kPoolEvents = 256;

void join(Queue &queue) {
    for (std::thread &caller : queue.callers) caller.join();
    queue.callers.clear();
}

}  // namespace

void Queues::open() { main_.list = make_list(0); }

Queue *Queues::make(int priority) {
    auto made = std::make_unique<Queue>();
    made->priority = priority;
    made->list = make_list(priority);
    queues_.insert(made.get());
    return made.release();
}

void Queues::free(Queue *queue) {
    if (!queues_.erase(queue)) return;
    release(*queue);
    delete queue;
}

double Queues::timed(const std::function<void(Object, Object)> &append) {
    const Object event = new_event();
    append(main_.list, event);
    then(main_);
    must(on_.api.zeEventHostSynchronize(event, kForever), "zeEventHostSynchronize");
    const Timestamps stamp = stamps(event);
    main_.busy = false;
    recycle();
    return seconds(stamp.global_start, stamp.global_end);
}

/// Level Zero calls nobody back: a thread waits until the queue gets there, and lets it go on afterwards.
void Queues::call(Queue &queue, void (*function)(void *), void *data) {
    if (queue.recording) throw Inapplicable("a command list of Level Zero calls nobody");
    const Object reached = new_event(), done = new_event();
    barrier(queue, reached, 0, nullptr);
    Object waits = done;
    barrier(queue, nullptr, 1, &waits);
    queue.callers.emplace_back([this, reached, done, function, data] {
        // An error appears to whoever waits for the queue; the device must not be left waiting for us.
        if (on_.api.zeEventHostSynchronize(reached, kForever) == kSuccess) function(data);
        on_.api.zeEventHostSignal(done);
    });
}

void Queues::finish(Queue &queue) {
    const Object done = new_event();
    barrier(queue, done, 0, nullptr);
    must(on_.api.zeEventHostSynchronize(done, kForever), "zeEventHostSynchronize");
    join(queue);
    queue.busy = false;
    recycle();
}

Event *Queues::make_event() {
    auto made = std::make_unique<Event>();
    events_.insert(made.get());
    return made.release();
}

void Queues::free(Event *event) {
    if (events_.erase(event)) delete event;  // what it recorded is recycled with all others
}

void Queues::record(Event &event, Queue &queue) {
    const Object recorded = new_event();
    barrier(queue, recorded, 0, nullptr);
    event.event = recorded;
}

void Queues::wait(Queue &queue, const Event &event) {
    Object waits = event.event;
    if (!waits) throw OwnError("waits for an event that was not recorded");
    barrier(queue, nullptr, 1, &waits);
}

double Queues::between(const Event &first, const Event &second) {
    return seconds(stamps(first.event).global_end, stamps(second.event).global_end);
}

Object Queues::graph(const std::function<void(Handle)> &enqueue_all) {
    Queue recorded;
    recorded.recording = true;
    ListDesc desc;
    desc.ordinal = on_.ordinal;
    must(on_.api.zeCommandListCreate(on_.context, on_.device, &desc, &recorded.list), "zeCommandListCreate");
    graphs_.insert(recorded.list);
    enqueue_all(&recorded);
    must(on_.api.zeCommandListClose(recorded.list), "zeCommandListClose");
    return recorded.list;
}

/// The command queue that executes the list, and the queue it is enqueued in, wait for each other by events.
void Queues::enqueue_graph(Queue &queue, Object graph) {
    if (!queue.executes) {
        const QueueDesc desc = queue_desc(queue.priority);
        must(on_.api.zeCommandQueueCreate(on_.context, on_.device, &desc, &queue.executes), "zeCommandQueueCreate");
    }
    Object before = new_event(), after = new_event();
    barrier(queue, before, 0, nullptr);
    Object lists[] = {short_list(nullptr, &before), graph, short_list(after, nullptr)};
    must(on_.api.zeCommandQueueExecuteCommandLists(queue.executes, 3, lists, nullptr),
         "zeCommandQueueExecuteCommandLists");
    barrier(queue, nullptr, 1, &after);
}

void Queues::free_graph(Object graph) {
    if (graphs_.erase(graph)) on_.api.zeCommandListDestroy(graph);
}

QueueDesc Queues::queue_desc(int priority) const {
    QueueDesc desc;
    desc.ordinal = on_.ordinal;
    if (priority > 0 && on_.about.queue_priority > 0) desc.priority = kPriorityHigh;
    return desc;
}

Object Queues::make_list(int priority) {
    const QueueDesc desc = queue_desc(priority);
    Object list = nullptr;
    must(on_.api.zeCommandListCreateImmediate(on_.context, on_.device, &desc, &list), "zeCommandListCreateImmediate");
    return list;
}

/// A closed list that waits for one event, or signals one.
Object Queues::short_list(Object signals, Object *waits) {
    ListDesc desc;
    desc.ordinal = on_.ordinal;
    Object list = nullptr;
    must(on_.api.zeCommandListCreate(on_.context, on_.device, &desc, &list), "zeCommandListCreate");
    short_lists_.push_back(list);
    must(on_.api.zeCommandListAppendBarrier(list, signals, waits ? 1 : 0, waits), "zeCommandListAppendBarrier");
    must(on_.api.zeCommandListClose(list), "zeCommandListClose");
    return list;
}

void Queues::barrier(Queue &queue, Object signals, std::uint32_t waits, Object *events) {
    must(on_.api.zeCommandListAppendBarrier(queue.list, signals, waits, events), "zeCommandListAppendBarrier");
    queue.busy = true;
}

Timestamps Queues::stamps(Object event) {
    if (!event) throw OwnError("asks for the time of an event that was not recorded");
    Timestamps out{};
    must(on_.api.zeEventQueryKernelTimestamp(event, &out), "zeEventQueryKernelTimestamp");
    return out;
}

/// Timestamps have fewer bits than their type, and wrap.
double Queues::seconds(std::uint64_t first, std::uint64_t last) const {
    const std::uint32_t bits = on_.about.kernel_timestamp_bits;
    const std::uint64_t mask = bits == 0 || bits >= 64 ? ~0ull : (1ull << bits) - 1;
    if (on_.about.timer == 0) throw ApiFailure("the driver gives its timer no resolution");
    return static_cast<double>((last - first) & mask) / static_cast<double>(on_.about.timer);
}

Object Queues::new_event() {
    if (free_.empty()) {
        EventPoolDesc pool_desc;
        pool_desc.count = kPoolEvents;
        Object pool = nullptr, device = on_.device;
        must(on_.api.zeEventPoolCreate(on_.context, &pool_desc, 1, &device, &pool), "zeEventPoolCreate");
        pools_.push_back(pool);
        for (std::uint32_t i = 0; i < kPoolEvents; ++i) {
            EventDesc desc;
            desc.index = i;
            Object event = nullptr;
            must(on_.api.zeEventCreate(pool, &desc, &event), "zeEventCreate");
            free_.push_back(event);
        }
    }
    const Object event = free_.back();
    free_.pop_back();
    used_.push_back(event);
    return event;
}

/// Events may be used again when nothing is under way that could signal or wait for them.
void Queues::recycle() {
    if (main_.busy) return;
    for (const Queue *queue : queues_) {
        if (queue->busy) return;
    }
    std::set<Object> held;
    for (const Event *event : events_) held.insert(event->event);
    std::vector<Object> still;
    for (Object event : used_) {
        if (held.count(event)) {
            still.push_back(event);
        } else {
            must(on_.api.zeEventHostReset(event), "zeEventHostReset");
            free_.push_back(event);
        }
    }
    used_ = std::move(still);
    for (Object list : short_lists_) on_.api.zeCommandListDestroy(list);
    short_lists_.clear();
}

void Queues::release(Queue &queue) {
    join(queue);
    if (queue.executes) on_.api.zeCommandQueueDestroy(queue.executes);
    if (queue.list) on_.api.zeCommandListDestroy(queue.list);
    queue.executes = queue.list = nullptr;
    queue.busy = false;
}

void Queues::release() {
    for (Event *event : events_) delete event;
    for (Queue *queue : queues_) {
        release(*queue);
        delete queue;
    }
    release(main_);
    for (Object list : short_lists_) on_.api.zeCommandListDestroy(list);
    for (Object graph : graphs_) on_.api.zeCommandListDestroy(graph);
    for (Object event : free_) on_.api.zeEventDestroy(event);
    for (Object event : used_) on_.api.zeEventDestroy(event);
    for (Object pool : pools_) on_.api.zeEventPoolDestroy(pool);
    events_.clear(), queues_.clear(), short_lists_.clear(), graphs_.clear(), free_.clear(), used_.clear();
    pools_.clear();
}

}  // namespace ze_driver
}  // namespace gt
