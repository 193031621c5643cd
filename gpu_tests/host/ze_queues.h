// Level Zero's queues, events and graphs.
//
// A queue is an immediate command list with a barrier behind everything, which makes it in-order on drivers of every
// age. A graph is a closed command list that is executed again and again.
#pragma once

#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "ze_driver.h"

namespace gt {
namespace ze_driver {

struct Queue {
    ze::Object list = nullptr;      // immediate, or that of a graph which is being recorded
    ze::Object executes = nullptr;  // the command queue that graphs run on; made when first needed
    bool recording = false;
    bool busy = false;
    int priority = 0;
    std::vector<std::thread> callers;
};

struct Event {
    ze::Object event = nullptr;  // null until it is recorded
};

/// All queues, events and graphs of the opened device. The null queue is the one that `open` makes.
class Queues {
  public:
    explicit Queues(const Opened &on) : on_(on) {}

    /// Make the device's own queue.
    void open();
    Queue *make(int priority);
    void free(Queue *queue);
    Queue &of(Handle queue) { return queue ? *static_cast<Queue *>(queue) : main_; }

    /// Let `append` append one thing to the device's own queue, wait for it, and return how long it took the device.
    double timed(const std::function<void(ze::Object list, ze::Object event)> &append);
    /// What follows begins after what was appended just now.
    void then(Queue &queue) { barrier(queue, nullptr, 0, nullptr); }
    void call(Queue &queue, void (*function)(void *), void *data);
    void finish(Queue &queue);

    Event *make_event();
    void free(Event *event);
    void record(Event &event, Queue &queue);
    void wait(Queue &queue, const Event &event);
    double between(const Event &first, const Event &second);

    ze::Object graph(const std::function<void(Handle)> &enqueue_all);
    void enqueue_graph(Queue &queue, ze::Object graph);
    void free_graph(ze::Object graph);

    void release();

  private:
    ze::QueueDesc queue_desc(int priority) const;
    ze::Object make_list(int priority);
    ze::Object short_list(ze::Object signals, ze::Object *waits);
    void barrier(Queue &queue, ze::Object signals, std::uint32_t waits, ze::Object *events);
    ze::Timestamps stamps(ze::Object event);
    double seconds(std::uint64_t first, std::uint64_t last) const;
    ze::Object new_event();
    void recycle();
    void release(Queue &queue);

    const Opened &on_;
    Queue main_;
    std::set<Queue *> queues_;
    std::set<Event *> events_;
    std::set<ze::Object> graphs_;
    std::vector<ze::Object> pools_, free_, used_, short_lists_;
};

}  // namespace ze_driver
}  // namespace gt
