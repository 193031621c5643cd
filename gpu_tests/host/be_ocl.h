// The OpenCL backend: be_ocl.cpp has its devices, be_ocl_memory.cpp buffers and copies, be_ocl_code.cpp programs, and
// be_ocl_queues.cpp what is enqueued.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cl_abi.h"
#include "gt_api.h"

namespace gt {
namespace ocl {

using namespace cl;

struct Api {
#define GT_MEMBER(name, result, parameters) result(*name) parameters = nullptr;
    GT_CL_FUNCTIONS(GT_MEMBER)
    GT_CL_NEWER_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

Cause cause_of(Int status);
/// Throws ApiFailure when the status is an error.
void must(Int status, const char *what);

/// Device memory, pinned memory that stays mapped, or shared virtual memory.
struct Buffer {
    Object memory = nullptr;   // null for shared virtual memory
    void *address = nullptr;   // of pinned and shared memory
};

struct Queue {
    Object queue = nullptr;
};

struct Event {
    Object event = nullptr;    // null until it is recorded
};

class OpenCl final : public Backend {
  public:
    ~OpenCl() override { release(); }
    void load(const std::string &library) override;
    std::vector<DeviceInfo> enumerate() override;
    void open(std::size_t index) override;
    void close() override { release(); }
    Properties properties() override;

    Handle alloc(std::size_t bytes, Memory where) override;
    void free(Handle handle) override;
    void *address(Handle buffer) override { return static_cast<Buffer *>(buffer)->address; }
    void write(Handle buffer, const void *from, std::size_t bytes, std::size_t offset) override;
    void read(Handle buffer, void *into, std::size_t bytes, std::size_t offset) override;
    double copy(const Place &to, const Place &from, std::size_t bytes) override;
    void prefetch(Handle handle, bool to_device) override;

    std::vector<CodeTarget> targets() override;
    Handle module(Form form, const std::string &code) override;
    void unload(Handle module) override;
    std::string binary(Handle module) override;
    Handle kernel(Handle module, const char *name) override;
    double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) override;

    Handle queue(int) override;
    void free_queue(Handle handle) override;
    void enqueue(Handle queue, Handle kernel, std::size_t items, std::size_t group,
                 const std::vector<Arg> &args) override;
    void enqueue_copy(Handle queue, const Place &to, const Place &from, std::size_t bytes) override;
    void enqueue_call(Handle queue, void (*function)(void *), void *data) override;
    void finish(Handle queue) override { must(api_.clFinish(of(queue)), "clFinish"); }

    Handle event() override { return keep(events_, std::make_unique<Event>()); }
    void free_event(Handle handle) override;
    void record(Handle handle, Handle queue) override;
    void wait(Handle queue, Handle handle) override;
    double between(Handle first, Handle second) override;

  private:
    template <class T>
    static T *keep(std::set<T *> &all, std::unique_ptr<T> one) {
        all.insert(one.get());
        return one.release();
    }

    template <class T>
    T value(Object device, Uint what) {
        T out{};
        if (api_.clGetDeviceInfo(device, what, sizeof out, &out, nullptr) != kSuccess) return T{};
        return out;
    }

    /// The matrix functions are those of the smallest sub-group that a device of Intel's has; 0: it does not tell.
    Uint smallest_subgroup();
    Ulong svm() { return api_.clSVMAlloc ? value<Ulong>(device_, kDeviceSvmCapabilities) : 0; }
    Object of(Handle queue) const { return queue ? static_cast<Queue *>(queue)->queue : main_.queue; }

    Object make_queue();
    void start(Object queue, Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args,
               Object *event);
    void set_argument(Handle kernel, Uint i, const Arg &arg);
    void enqueue_between(Object queue, const Place &to, const Place &from, std::size_t bytes, bool blocking,
                         Object *event);
    double stamp(Object event, Uint which);
    double seconds_of(Object event);

    void release(Buffer *buffer);
    void release();
    std::string text(Object device, Uint what);
    DeviceInfo describe(Object platform, Object device);
    std::string log(Object program);

    Api api_;
    bool fake_ = false;
    std::vector<Object> devices_;
    Object device_ = nullptr, context_ = nullptr;
    Queue main_;
    std::set<Buffer *> buffers_;
    std::set<Queue *> queues_;
    std::set<Event *> events_;
    std::set<Object> programs_, kernels_, user_events_;
};

}  // namespace ocl
}  // namespace gt
