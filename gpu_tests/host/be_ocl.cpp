// OpenCL, through the installable-client-driver loader libOpenCL.so.1.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <thread>

#include "cl_abi.h"
#include "gt_api.h"
#include "intel.h"

namespace gt {
namespace {

using namespace cl;

struct Api {
#define GT_MEMBER(name, result, parameters) result(*name) parameters = nullptr;
    GT_CL_FUNCTIONS(GT_MEMBER)
    GT_CL_NEWER_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

Cause cause_of(Int status) {
    switch (status) {
        case kMemObjectAllocationFailure:
        case kOutOfHostMemory:
        case kInvalidBufferSize: return Cause::kOutOfMemory;
        case kBuildProgramFailure:
        case kInvalidBinary:
        case kInvalidProgramExecutable: return Cause::kBadImage;
        case kDeviceNotFound: return Cause::kNoDevice;
        case kDeviceNotAvailable:
        case kInvalidCommandQueue: return Cause::kDeviceLost;
        case kNvidiaIllegalAccess: return Cause::kIllegalAddress;
        case kOutOfResources: return Cause::kLaunch;
        default: return Cause::kOther;
    }
}

void must(Int status, const char *what) {
    if (status == kSuccess) return;
    throw ApiFailure(std::string(what) + " failed with OpenCL error " + std::to_string(status), cause_of(status), status);
}

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

class OpenCl final : public Backend {
  public:
    ~OpenCl() override { release(); }

    void load(const std::string &library) override {
        const char *name = library.empty() ? "libOpenCL.so.1" : library.c_str();
        void *handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!handle) {
            const char *why = ::dlerror();
            throw Unavailable(std::string("no OpenCL loader: ") + (why ? why : name));
        }
#define GT_LOOKUP(function, result, parameters) \
    api_.function = reinterpret_cast<result(*) parameters>(::dlsym(handle, #function));
#define GT_REQUIRE(function, result, parameters)     \
    GT_LOOKUP(function, result, parameters)          \
    if (!api_.function) throw ApiFailure(std::string(name) + " lacks the symbol " #function);
        GT_CL_FUNCTIONS(GT_REQUIRE)
        GT_CL_NEWER_FUNCTIONS(GT_LOOKUP)
#undef GT_REQUIRE
#undef GT_LOOKUP
        fake_ = ::dlsym(handle, "gt_fake_library") != nullptr;
    }

    std::vector<DeviceInfo> enumerate() override {
        devices_.clear();
        std::vector<DeviceInfo> out;
        Uint platforms = 0;
        const Int status = api_.clGetPlatformIDs(0, nullptr, &platforms);
        // The loader's answer to "no driver is registered", an extension's code: simply no devices.
        if (status == kPlatformNotFoundKhr || (status == kSuccess && platforms == 0)) return out;
        must(status, "clGetPlatformIDs");
        std::vector<Object> ids(platforms);
        must(api_.clGetPlatformIDs(platforms, ids.data(), nullptr), "clGetPlatformIDs");
        for (Object platform : ids) {
            Uint count = 0;
            const Int found = api_.clGetDeviceIDs(platform, kDeviceTypeAll, 0, nullptr, &count);
            if (found == kDeviceNotFound || (found == kSuccess && count == 0)) continue;
            must(found, "clGetDeviceIDs");
            std::vector<Object> devices(count);
            must(api_.clGetDeviceIDs(platform, kDeviceTypeAll, count, devices.data(), nullptr), "clGetDeviceIDs");
            for (Object device : devices) {
                devices_.push_back(device);
                out.push_back(describe(platform, device));
            }
        }
        return out;
    }

    void open(std::size_t index) override {
        release();
        device_ = devices_.at(index);
        Int status = kSuccess;
        context_ = api_.clCreateContext(nullptr, 1, &device_, nullptr, nullptr, &status);
        must(status, "clCreateContext");
        main_.queue = make_queue();
    }

    void close() override { release(); }

    Properties properties() override {
        Properties p;
        p.max_group = value<std::size_t>(device_, kDeviceMaxWorkGroupSize);
        p.shared_bytes = static_cast<std::size_t>(value<Ulong>(device_, kDeviceLocalMemSize));
        p.l2_bytes = value<Ulong>(device_, kDeviceGlobalMemCacheSize);
        p.clock_hz = value<Uint>(device_, kDeviceMaxClockFrequency) * 1e6;
        p.fp64 = value<Ulong>(device_, kDeviceDoubleFpConfig) != 0;
        const std::string extensions = ' ' + text(device_, kDeviceExtensions) + ' ';
        const auto has = [&](const char *name) { return extensions.find(std::string(" ") + name + " ") != std::string::npos; };
        p.fp16 = has("cl_khr_fp16");
        if (has("cl_intel_device_attribute_query")) p.architecture = intel_target(value<Uint>(device_, kDeviceIdIntel));
        if (has("cl_intel_subgroup_matrix_multiply_accumulate")) p.matrix_subgroup = smallest_subgroup();
        p.int64_atomics = has("cl_khr_int64_base_atomics") && has("cl_khr_int64_extended_atomics");
        const Ulong shared = svm();
        // Coarse-grained memory would have to be mapped around every look at it: that is no managed memory.
        p.managed = (shared & kSvmFineGrainBuffer) != 0;
        p.concurrent_managed = p.managed && (shared & kSvmAtomics) != 0;
        p.system_memory = (shared & kSvmFineGrainSystem) != 0 && api_.clSetKernelArgSVMPointer;
        p.callbacks = true;
        p.printf_bytes = value<std::size_t>(device_, kDevicePrintfBufferSize);
        return p;
    }

    Handle alloc(std::size_t bytes, Memory where) override {
        auto buffer = std::make_unique<Buffer>();
        if (where == Memory::kManaged) {
            if ((svm() & kSvmFineGrainBuffer) == 0) throw Inapplicable("the device has no fine-grained shared memory");
            buffer->address = api_.clSVMAlloc(context_, kMemReadWrite | kMemSvmFineGrainBuffer, bytes, 0);
            if (!buffer->address) throw ApiFailure("clSVMAlloc gave no memory", Cause::kOutOfMemory);
        } else {
            const bool pinned = where == Memory::kPinned;
            Int status = kSuccess;
            buffer->memory = api_.clCreateBuffer(context_, kMemReadWrite | (pinned ? kMemAllocHostPtr : 0), bytes,
                                                 nullptr, &status);
            must(status, "clCreateBuffer");
            if (pinned) {
                buffer->address = api_.clEnqueueMapBuffer(main_.queue, buffer->memory, 1, kMapReadWrite, 0, bytes, 0,
                                                          nullptr, nullptr, &status);
                if (status != kSuccess) {
                    api_.clReleaseMemObject(buffer->memory);
                    must(status, "clEnqueueMapBuffer");
                }
            }
        }
        return keep(buffers_, std::move(buffer));
    }

    void free(Handle handle) override {
        Buffer *buffer = static_cast<Buffer *>(handle);
        if (buffers_.erase(buffer)) release(buffer);
    }

    void *address(Handle buffer) override { return static_cast<Buffer *>(buffer)->address; }

    void write(Handle buffer, const void *from, std::size_t bytes, std::size_t offset) override {
        enqueue_between(main_.queue, Place::in(buffer, offset), Place::from(from), bytes, true, nullptr);
    }

    void read(Handle buffer, void *into, std::size_t bytes, std::size_t offset) override {
        enqueue_between(main_.queue, Place::at(into), Place::in(buffer, offset), bytes, true, nullptr);
    }

    double copy(const Place &to, const Place &from, std::size_t bytes) override {
        Object event = nullptr;
        enqueue_between(main_.queue, to, from, bytes, false, &event);
        return seconds_of(event);
    }

    void prefetch(Handle handle, bool to_device) override {
        const void *address = static_cast<Buffer *>(handle)->address;
        if (!api_.clEnqueueSVMMigrateMem) return;
        must(api_.clEnqueueSVMMigrateMem(main_.queue, 1, &address, nullptr, to_device ? 0 : kMigrateToHost, 0, nullptr,
                                         nullptr),
             "clEnqueueSVMMigrateMem");
        must(api_.clFinish(main_.queue), "clFinish");
    }

    std::vector<CodeTarget> targets() override {
        std::vector<CodeTarget> out;
        if (api_.clCreateProgramWithIL && text(device_, kDeviceIlVersion).find("SPIR-V") != std::string::npos) {
            out.push_back({Form::kIntermediate, "spirv", "spirv", "spv"});
        }
        out.push_back({Form::kSource, "source", "", ""});
        return out;
    }

    Handle module(Form form, const std::string &code) override {
        Int status = kSuccess, loaded = kSuccess;
        const char *text = code.data();
        const std::size_t length = code.size();
        Object program = nullptr;
        if (form == Form::kSource) {
            program = api_.clCreateProgramWithSource(context_, 1, &text, &length, &status);
            must(status, "clCreateProgramWithSource");
        } else if (form == Form::kIntermediate) {
            if (!api_.clCreateProgramWithIL) throw Inapplicable("the OpenCL loader takes no SPIR-V");
            program = api_.clCreateProgramWithIL(context_, text, length, &status);
            must(status, "clCreateProgramWithIL");
        } else {
            const auto *bytes = reinterpret_cast<const unsigned char *>(text);
            program = api_.clCreateProgramWithBinary(context_, 1, &device_, &length, &bytes, &loaded, &status);
            must(status, "clCreateProgramWithBinary");
        }
        status = api_.clBuildProgram(program, 1, &device_, form == Form::kSource ? "-cl-std=CL1.2" : "", nullptr, nullptr);
        if (status != kSuccess) {
            const std::string why = "clBuildProgram failed with " + std::to_string(status) + log(program);
            api_.clReleaseProgram(program);
            throw ApiFailure(why, cause_of(status), status);
        }
        programs_.insert(program);
        return program;
    }

    void unload(Handle module) override {
        if (programs_.erase(module)) api_.clReleaseProgram(module);
    }

    std::string binary(Handle module) override {
        std::size_t size = 0;
        must(api_.clGetProgramInfo(module, kProgramBinarySizes, sizeof size, &size, nullptr), "clGetProgramInfo");
        if (size == 0) throw Inapplicable("the driver gives no binary of a program");
        std::string out(size, '\0');
        char *place = &out[0];
        must(api_.clGetProgramInfo(module, kProgramBinaries, sizeof place, &place, nullptr), "clGetProgramInfo");
        return out;
    }

    Handle kernel(Handle module, const char *name) override {
        Int status = kSuccess;
        Object kernel = api_.clCreateKernel(module, name, &status);
        must(status, "clCreateKernel");
        kernels_.insert(kernel);
        return kernel;
    }

    double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) override {
        Object event = nullptr;
        start(main_.queue, kernel, items, group, args, &event);
        return seconds_of(event);
    }

    Handle queue(int) override {
        auto made = std::make_unique<Queue>();
        made->queue = make_queue();
        return keep(queues_, std::move(made));
    }

    void free_queue(Handle handle) override {
        Queue *queue = static_cast<Queue *>(handle);
        if (!queues_.erase(queue)) return;
        api_.clReleaseCommandQueue(queue->queue);
        delete queue;
    }

    void enqueue(Handle queue, Handle kernel, std::size_t items, std::size_t group,
                 const std::vector<Arg> &args) override {
        start(of(queue), kernel, items, group, args, nullptr);
    }

    void enqueue_copy(Handle queue, const Place &to, const Place &from, std::size_t bytes) override {
        enqueue_between(of(queue), to, from, bytes, false, nullptr);
    }

    void enqueue_call(Handle queue, void (*function)(void *), void *data) override {
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

    void finish(Handle queue) override { must(api_.clFinish(of(queue)), "clFinish"); }

    Handle event() override { return keep(events_, std::make_unique<Event>()); }

    void free_event(Handle handle) override {
        Event *event = static_cast<Event *>(handle);
        if (!events_.erase(event)) return;
        if (event->event) api_.clReleaseEvent(event->event);
        delete event;
    }

    void record(Handle handle, Handle queue) override {
        Event *event = static_cast<Event *>(handle);
        if (event->event) api_.clReleaseEvent(event->event);
        event->event = nullptr;
        must(api_.clEnqueueMarkerWithWaitList(of(queue), 0, nullptr, &event->event), "clEnqueueMarkerWithWaitList");
        must(api_.clFlush(of(queue)), "clFlush");
    }

    void wait(Handle queue, Handle handle) override {
        Event *event = static_cast<Event *>(handle);
        if (!event->event) throw OwnError("waits for an event that was not recorded");
        must(api_.clEnqueueBarrierWithWaitList(of(queue), 1, &event->event, nullptr), "clEnqueueBarrierWithWaitList");
    }

    double between(Handle first, Handle second) override {
        return (stamp(static_cast<Event *>(second)->event, kProfilingEnd) -
                stamp(static_cast<Event *>(first)->event, kProfilingEnd)) *
               1e-9;
    }

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
    Uint smallest_subgroup() {
        std::size_t sizes[8] = {}, bytes = 0;
        if (api_.clGetDeviceInfo(device_, kDeviceSubGroupSizesIntel, sizeof sizes, sizes, &bytes) != kSuccess) return 0;
        std::size_t *const end = sizes + bytes / sizeof *sizes;
        return sizes == end ? 0 : static_cast<Uint>(*std::min_element(sizes, end));
    }

    Ulong svm() { return api_.clSVMAlloc ? value<Ulong>(device_, kDeviceSvmCapabilities) : 0; }

    Object of(Handle queue) const { return queue ? static_cast<Queue *>(queue)->queue : main_.queue; }

    Object make_queue() {
        Int status = kSuccess;
        // Deprecated since OpenCL 2.0, but the one call that every loader and driver has.
        Object queue = api_.clCreateCommandQueue(context_, device_, kQueueProfiling, &status);
        must(status, "clCreateCommandQueue");
        return queue;
    }

    void start(Object queue, Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args,
               Object *event) {
        for (Uint i = 0; i < args.size(); ++i) set_argument(kernel, i, args[i]);
        const std::size_t global = (items + group - 1) / group * group;
        must(api_.clEnqueueNDRangeKernel(queue, kernel, 1, nullptr, &global, &group, 0, nullptr, event),
             "clEnqueueNDRangeKernel");
    }

    void set_argument(Handle kernel, Uint i, const Arg &arg) {
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

    void enqueue_between(Object queue, const Place &to, const Place &from, std::size_t bytes, bool blocking,
                         Object *event) {
        const auto *target = static_cast<const Buffer *>(to.buffer), *source = static_cast<const Buffer *>(from.buffer);
        Object into = target ? target->memory : nullptr, out = source ? source->memory : nullptr;
        char *to_host = static_cast<char *>(target ? target->address : to.host) + (target ? to.offset : 0);
        const char *from_host = static_cast<const char *>(source ? source->address : from.host) + (source ? from.offset : 0);
        // Pinned memory is a buffer of its own to OpenCL, and a host address to what is copied from and to it.
        if (into && target->address && out && !source->address) into = nullptr;
        if (out && source->address && into && !target->address) out = nullptr;
        if (into && out) {
            must(api_.clEnqueueCopyBuffer(queue, out, into, from.offset, to.offset, bytes, 0, nullptr, event),
                 "clEnqueueCopyBuffer");
            if (blocking) must(api_.clFinish(queue), "clFinish");
        } else if (into) {
            must(api_.clEnqueueWriteBuffer(queue, into, blocking, to.offset, bytes, from_host, 0, nullptr, event),
                 "clEnqueueWriteBuffer");
        } else if (out) {
            must(api_.clEnqueueReadBuffer(queue, out, blocking, from.offset, bytes, to_host, 0, nullptr, event),
                 "clEnqueueReadBuffer");
        } else {
            if (!api_.clEnqueueSVMMemcpy) throw Inapplicable("this OpenCL has no shared virtual memory");
            must(api_.clEnqueueSVMMemcpy(queue, blocking, to_host, from_host, bytes, 0, nullptr, event),
                 "clEnqueueSVMMemcpy");
        }
    }

    double stamp(Object event, Uint which) {
        Ulong at = 0;
        must(api_.clGetEventProfilingInfo(event, which, sizeof at, &at, nullptr), "clGetEventProfilingInfo");
        return static_cast<double>(at);
    }

    double seconds_of(Object event) {
        must(api_.clWaitForEvents(1, &event), "clWaitForEvents");
        const double seconds = (stamp(event, kProfilingEnd) - stamp(event, kProfilingStart)) * 1e-9;
        api_.clReleaseEvent(event);
        return seconds;
    }

    void release(Buffer *buffer) {
        if (buffer->memory && buffer->address) {
            api_.clEnqueueUnmapMemObject(main_.queue, buffer->memory, buffer->address, 0, nullptr, nullptr);
            api_.clFinish(main_.queue);
        }
        if (buffer->memory) api_.clReleaseMemObject(buffer->memory);
        else if (buffer->address) api_.clSVMFree(context_, buffer->address);
        delete buffer;
    }

    void release() {
        if (!context_) return;
        for (Event *event : events_) {
            if (event->event) api_.clReleaseEvent(event->event);
            delete event;
        }
        for (Object event : user_events_) api_.clReleaseEvent(event);
        for (Buffer *buffer : buffers_) release(buffer);
        for (Object kernel : kernels_) api_.clReleaseKernel(kernel);
        for (Object program : programs_) api_.clReleaseProgram(program);
        for (Queue *queue : queues_) {
            api_.clReleaseCommandQueue(queue->queue);
            delete queue;
        }
        events_.clear(), user_events_.clear(), buffers_.clear(), kernels_.clear(), programs_.clear(), queues_.clear();
        api_.clReleaseCommandQueue(main_.queue);
        api_.clReleaseContext(context_);
        main_.queue = context_ = nullptr;
    }

    std::string text(Object device, Uint what) {
        std::size_t size = 0;
        if (api_.clGetDeviceInfo(device, what, 0, nullptr, &size) != kSuccess || size == 0 || size > 65536) return "";
        std::vector<char> buffer(size + 1, '\0');
        if (api_.clGetDeviceInfo(device, what, size, buffer.data(), nullptr) != kSuccess) return "";
        return buffer.data();
    }

    DeviceInfo describe(Object platform, Object device) {
        DeviceInfo info;
        info.name = text(device, kDeviceName);
        info.vendor = text(device, kDeviceVendor);
        info.driver = text(device, kDriverVersion);
        info.api_version = text(device, kDeviceVersion);
        char buffer[1024] = {};
        if (api_.clGetPlatformInfo(platform, kPlatformName, sizeof buffer - 1, buffer, nullptr) == kSuccess) {
            info.platform = buffer;
        }
        Ulong type = 0;
        must(api_.clGetDeviceInfo(device, kDeviceType, sizeof type, &type, nullptr), "CL_DEVICE_TYPE");
        info.kind = fake_ ? "fake" : (type & kDeviceTypeGpu) ? "gpu" : "cpu-runtime";
        Ulong bytes = 0;
        must(api_.clGetDeviceInfo(device, kDeviceGlobalMemSize, sizeof bytes, &bytes, nullptr), "global memory size");
        info.mem_bytes = bytes;
        Uint units = 0;
        must(api_.clGetDeviceInfo(device, kDeviceMaxComputeUnits, sizeof units, &units, nullptr), "compute units");
        info.compute_units = units;
        Uint pci[4] = {};  // domain, bus, device, function
        if (api_.clGetDeviceInfo(device, kDevicePciBusInfoKhr, sizeof pci, pci, nullptr) == kSuccess) {
            char bdf[40];
            std::snprintf(bdf, sizeof bdf, "%04x:%02x:%02x.%x", pci[0], pci[1], pci[2], pci[3]);
            info.bdf = bdf;
        }
        unsigned char uuid[16] = {};
        if (api_.clGetDeviceInfo(device, kDeviceUuidKhr, sizeof uuid, uuid, nullptr) == kSuccess) {
            char hex[3];
            for (unsigned char byte : uuid) {
                std::snprintf(hex, sizeof hex, "%02x", byte);
                info.uuid += hex;
            }
        }
        return info;
    }

    std::string log(Object program) {
        std::vector<char> buffer(16384, '\0');
        const Int status = api_.clGetProgramBuildInfo(program, device_, kProgramBuildLog, buffer.size() - 1,
                                                      buffer.data(), nullptr);
        return status == kSuccess ? std::string(": ") + buffer.data() : "";
    }

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

GT_BACKEND("opencl", OpenCl);

}  // namespace
}  // namespace gt
