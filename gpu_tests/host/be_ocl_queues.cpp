#include <cstring>
#include <thread>

#include "be_ocl.h"

namespace gt {
namespace ocl {

namespace {

struct Call {
    void (*function)(void *);
    void *data;
    Object done;
    Int (*complete)(Object, Int);
};

void call_back(Object, Int, void *data) {
    // On a thread of ours: a function that takes its time would hold up the thread on which a driver does its work.
    std::thread([data] {
        const std::unique_ptr<Call> call(static_cast<Call *>(data));
        call->function(call->data);
        call->complete(call->done, kComplete);
    }).detach();
}

}  // namespace

double OpenCl::launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) {
    Object event = nullptr;
    start(main_.queue, kernel, items, group, args, &event);
    return seconds_of(event);
}

Handle OpenCl::queue(int) {
    auto made = std::make_unique<Queue>();
    made->queue = make_queue();
    return keep(queues_, std::move(made));
}

void OpenCl::free_queue(Handle handle) {
    Queue *queue = static_cast<Queue *>(handle);
    if (!queues_.erase(queue)) return;
    api_.clReleaseCommandQueue(queue->queue);
    delete queue;
}

void OpenCl::enqueue(Handle queue, Handle kernel, std::size_t items, std::size_t group,
             const std::vector<Arg> &args) {
    start(of(queue), kernel, items, group, args, nullptr);
}

void OpenCl::enqueue_copy(Handle queue, const Place &to, const Place &from, std::size_t bytes) {
    enqueue_between(of(queue), to, from, bytes, false, nullptr);
}

void OpenCl::enqueue_call(Handle queue, void (*function)(void *), void *data) {
    Int status = kSuccess;
    Object reached = nullptr, done = api_.clCreateUserEvent(context_, &status);
    must(status, "clCreateUserEvent");
    must(api_.clEnqueueMarkerWithWaitList(of(queue), 0, nullptr, &reached), "clEnqueueMarkerWithWaitList");
    must(api_.clEnqueueBarrierWithWaitList(of(queue), 1, &done, nullptr), "clEnqueueBarrierWithWaitList");
    auto call = std::make_unique<Call>(Call{function, data, done, api_.clSetUserEventStatus});
    must(api_.clSetEventCallback(reached, kComplete, call_back, call.get()), "clSetEventCallback");
    call.release();  // call_back owns it
    must(api_.clFlush(of(queue)), "clFlush");
    api_.clReleaseEvent(reached);
    user_events_.insert(done);
}

void OpenCl::free_event(Handle handle) {
    Event *event = static_cast<Event *>(handle);
    if (!events_.erase(event)) return;
    if (event->event) api_.clReleaseEvent(event->event);
    delete event;
}

void OpenCl::record(Handle handle, Handle queue) {
    Event *event = static_cast<Event *>(handle);
    if (event->event) api_.clReleaseEvent(event->event);
    event->event = nullptr;
    must(api_.clEnqueueMarkerWithWaitList(of(queue), 0, nullptr, &event->event), "clEnqueueMarkerWithWaitList");
    must(api_.clFlush(of(queue)), "clFlush");
}

void OpenCl::wait(Handle queue, Handle handle) {
    Event *event = static_cast<Event *>(handle);
    if (!event->event) throw OwnError("waits for an event that was not recorded");
    must(api_.clEnqueueBarrierWithWaitList(of(queue), 1, &event->event, nullptr), "clEnqueueBarrierWithWaitList");
}

double OpenCl::between(Handle first, Handle second) {
    return (stamp(static_cast<Event *>(second)->event, kProfilingEnd) -
            stamp(static_cast<Event *>(first)->event, kProfilingEnd)) *
           1e-9;
}

Object OpenCl::make_queue() {
    Int status = kSuccess;
    // Deprecated since OpenCL 2.0, but the one call that every loader and driver has.
    Object queue = api_.clCreateCommandQueue(context_, device_, kQueueProfiling, &status);
    must(status, "clCreateCommandQueue");
    return queue;
}

void OpenCl::start(Object queue, Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args,
           Object *event) {
    for (Uint i = 0; i < args.size(); ++i) set_argument(kernel, i, args[i]);
    const std::size_t global = (items + group - 1) / group * group;
    must(api_.clEnqueueNDRangeKernel(queue, kernel, 1, nullptr, &global, &group, 0, nullptr, event),
         "clEnqueueNDRangeKernel");
}

void OpenCl::set_argument(Handle kernel, Uint i, const Arg &arg) {
    const Buffer *buffer = static_cast<Buffer *>(arg.buffer);
    void *pointer = nullptr;
    if (arg.address) std::memcpy(&pointer, arg.bytes, sizeof pointer);
    else if (buffer && !buffer->memory) pointer = buffer->address;
    if (pointer) {
        if (!api_.clSetKernelArgSVMPointer) throw Inapplicable("this OpenCL has no shared virtual memory");
        must(api_.clSetKernelArgSVMPointer(kernel, i, pointer), "clSetKernelArgSVMPointer");
    } else if (buffer) {
        must(api_.clSetKernelArg(kernel, i, sizeof(Object), &buffer->memory), "clSetKernelArg");
    } else {
        must(api_.clSetKernelArg(kernel, i, arg.size, arg.bytes), "clSetKernelArg");
    }
}

double OpenCl::stamp(Object event, Uint which) {
    Ulong at = 0;
    must(api_.clGetEventProfilingInfo(event, which, sizeof at, &at, nullptr), "clGetEventProfilingInfo");
    return static_cast<double>(at);
}

double OpenCl::seconds_of(Object event) {
    must(api_.clWaitForEvents(1, &event), "clWaitForEvents");
    const double seconds = (stamp(event, kProfilingEnd) - stamp(event, kProfilingStart)) * 1e-9;
    api_.clReleaseEvent(event);
    return seconds;
}

}  // namespace ocl
}  // namespace gt
