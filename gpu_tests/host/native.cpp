#include "native.h"

#include <dlfcn.h>

#include <cstring>
#include <memory>

namespace gt {

using namespace native;

Cause native_cause(int status) {
    switch (status) {
        case 2: return Cause::kOutOfMemory;
        case 100:                                   // no device
        case 101: return Cause::kNoDevice;          // not this one
        case 200: case 209: case 218: case 222: case 300: return Cause::kBadImage;
        case 700: return Cause::kIllegalAddress;
        case 710: return Cause::kAssert;
        case 98: case 701: case 702: case 719: return Cause::kLaunch;
        case 46: case 709: case 802: return Cause::kDeviceLost;  // unavailable, context destroyed, system not ready
        case 214: case 220: return Cause::kDeviceLost;           // uncorrectable error of memory or link
        default: return Cause::kOther;
    }
}

void NativeBackend::must(int status, const char *what) {
    if (status == 0) return;
    throw ApiFailure(std::string(what) + " failed with " + describe(status) + " (" + std::to_string(status) + ")",
                     native_cause(status), status);
}

void *NativeBackend::open_library(const std::string &wanted, const std::vector<const char *> &usual, const char *what) {
    std::string why;
    for (const std::string &name : wanted.empty() ? std::vector<std::string>(usual.begin(), usual.end())
                                                  : std::vector<std::string>{wanted}) {
        if (void *library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
            fake_ = ::dlsym(library, "gt_fake_library") != nullptr;
            return library;
        }
        const char *error = ::dlerror();
        if (why.empty()) why = error ? error : name;
    }
    throw Unavailable(std::string("no ") + what + ": " + why);
}

void NativeBackend::look_up(void *library, bool in_cuda) {
#define GT_LOOKUP(member, parameters, cuda, hip) \
    calls_.member = reinterpret_cast<int(*) parameters>(::dlsym(library, in_cuda ? cuda : hip));
#define GT_REQUIRE(member, parameters, cuda, hip) \
    GT_LOOKUP(member, parameters, cuda, hip)      \
    if (!calls_.member)                           \
        throw ApiFailure(std::string("the driver's library lacks the symbol ") + (in_cuda ? cuda : hip));
    GT_NATIVE_FUNCTIONS(GT_REQUIRE)
    GT_NATIVE_NEWER_FUNCTIONS(GT_LOOKUP)
#undef GT_REQUIRE
#undef GT_LOOKUP
}

void NativeBackend::begin() {
    must(calls_.stream_create(&main_, kStreamNonBlocking, 0), "making a stream");
    must(calls_.event_create(&before_, 0), "making an event");
    must(calls_.event_create(&after_, 0), "making an event");
}

void NativeBackend::end() {
    for (Object graph : graphs_) calls_.graph_exec_destroy(graph);
    for (Object event : events_) calls_.event_destroy(event);
    for (Object stream : streams_) calls_.stream_destroy(stream);
    for (Buffer *buffer : buffers_) release(buffer);
    for (Kernel *kernel : kernels_) delete kernel;
    for (Object module : modules_) calls_.module_unload(module);
    graphs_.clear(), events_.clear(), streams_.clear(), buffers_.clear(), kernels_.clear(), modules_.clear();
    for (Object event : {before_, after_}) {
        if (event) calls_.event_destroy(event);
    }
    if (main_) calls_.stream_destroy(main_);
    before_ = after_ = main_ = nullptr;
}

MemoryInfo NativeBackend::memory() {
    enter();
    std::size_t free = 0, total = 0;
    must(calls_.mem_info(&free, &total), "asking for free memory");
    return {free, total};
}

Handle NativeBackend::alloc(std::size_t bytes, Memory where) {
    enter();
    auto buffer = std::make_unique<Buffer>();
    buffer->where = where;
    buffer->bytes = bytes;
    void *host = nullptr;
    if (where == Memory::kDevice) {
        must(calls_.mem_alloc(&buffer->address, bytes), "allocating device memory");
    } else if (where == Memory::kPinned) {
        must(calls_.host_alloc(&host, bytes, 0), "allocating pinned memory");
        buffer->address = reinterpret_cast<Address>(host);
    } else {
        if (!calls_.managed_alloc) throw Inapplicable("this driver has no managed memory");
        must(calls_.managed_alloc(&buffer->address, bytes, kAttachGlobal), "allocating managed memory");
    }
    return *buffers_.insert(buffer.release()).first;
}

void NativeBackend::release(Buffer *buffer) {
    // Destructors of tests come here after errors as well: what is wrong has been said by then.
    if (buffer->imported) calls_.ipc_close(buffer->address);
    else if (buffer->where == Memory::kPinned) calls_.host_free(reinterpret_cast<void *>(buffer->address));
    else calls_.mem_free(buffer->address);
    delete buffer;
}

void NativeBackend::free(Handle handle) {
    enter();
    Buffer *buffer = static_cast<Buffer *>(handle);
    if (buffers_.erase(buffer)) release(buffer);
}

void *NativeBackend::address(Handle handle) {
    const Buffer *buffer = static_cast<Buffer *>(handle);
    if (buffer->where == Memory::kDevice) throw OwnError("device memory has no address in this process");
    return reinterpret_cast<void *>(buffer->address);
}

Address NativeBackend::address_of(const Place &place) const {
    if (!place.buffer) return reinterpret_cast<Address>(place.host);
    return static_cast<Buffer *>(place.buffer)->address + place.offset;
}

void NativeBackend::write(Handle buffer, const void *from, std::size_t bytes, std::size_t offset) {
    enqueue_copy(nullptr, Place::in(buffer, offset), Place::from(from), bytes);
    finish(nullptr);
}

void NativeBackend::read(Handle buffer, void *into, std::size_t bytes, std::size_t offset) {
    enqueue_copy(nullptr, Place::at(into), Place::in(buffer, offset), bytes);
    finish(nullptr);
}

double NativeBackend::copy(const Place &to, const Place &from, std::size_t bytes) {
    enter();
    must(calls_.event_record(before_, main_), "recording an event");
    must(copy_async(address_of(to), address_of(from), bytes, main_), "copying");
    must(calls_.event_record(after_, main_), "recording an event");
    return between_marks();
}

double NativeBackend::between_marks() {
    must(calls_.stream_synchronize(main_), "waiting for the stream");
    float milliseconds = 0.0f;
    must(calls_.event_elapsed(&milliseconds, before_, after_), "asking for the time between events");
    return milliseconds * 1e-3;
}

void NativeBackend::unload(Handle module) {
    enter();
    if (modules_.erase(module)) calls_.module_unload(module);
}

Handle NativeBackend::kernel(Handle module, const char *name) {
    enter();
    auto kernel = std::make_unique<Kernel>();
    must(calls_.module_function(&kernel->function, module, name), name);
    return *kernels_.insert(kernel.release()).first;
}

void NativeBackend::start(Object stream, Handle handle, std::size_t items, std::size_t group,
                          const std::vector<Arg> &args) {
    const Kernel *kernel = static_cast<Kernel *>(handle);
    constexpr std::size_t kMost = 32;
    void *pointers[kMost];
    Address addresses[kMost];
    if (args.size() > kMost) throw OwnError("a kernel with more than 32 arguments");
    for (std::size_t i = 0; i < args.size(); ++i) {
        if (args[i].size == 0) {
            addresses[i] = static_cast<const Buffer *>(args[i].buffer)->address;
            pointers[i] = &addresses[i];
        } else {
            pointers[i] = const_cast<unsigned char *>(args[i].bytes);
        }
    }
    const auto groups = static_cast<unsigned>((items + group - 1) / group);
    must(calls_.launch_kernel(kernel->function, groups, 1, 1, static_cast<unsigned>(group), 1, 1,
                              static_cast<unsigned>(kernel->shared), stream, pointers, nullptr),
         "launching a kernel");
}

double NativeBackend::launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) {
    enter();
    must(calls_.event_record(before_, main_), "recording an event");
    start(main_, kernel, items, group, args);
    must(calls_.event_record(after_, main_), "recording an event");
    return between_marks();
}

Handle NativeBackend::queue(int priority) {
    enter();
    int least = 0, greatest = 0;
    if (priority > 0) must(calls_.priority_range(&least, &greatest), "asking for the priorities of streams");
    Object stream = nullptr;
    must(calls_.stream_create(&stream, kStreamNonBlocking, priority > 0 ? greatest : 0), "making a stream");
    streams_.insert(stream);
    return stream;
}

void NativeBackend::free_queue(Handle queue) {
    enter();
    if (streams_.erase(queue)) calls_.stream_destroy(queue);
}

void NativeBackend::enqueue(Handle queue, Handle kernel, std::size_t items, std::size_t group,
                            const std::vector<Arg> &args) {
    enter();
    start(stream_of(queue), kernel, items, group, args);
}

void NativeBackend::enqueue_copy(Handle queue, const Place &to, const Place &from, std::size_t bytes) {
    enter();
    must(copy_async(address_of(to), address_of(from), bytes, stream_of(queue)), "copying");
}

void NativeBackend::enqueue_call(Handle queue, void (*function)(void *), void *data) {
    enter();
    if (!calls_.host_call) throw Inapplicable("this driver does not call the host from a stream");
    must(calls_.host_call(stream_of(queue), function, data), "enqueueing a call of the host");
}

void NativeBackend::finish(Handle queue) {
    enter();
    must(calls_.stream_synchronize(stream_of(queue)), "waiting for the stream");
}

Handle NativeBackend::event() {
    enter();
    Object event = nullptr;
    must(calls_.event_create(&event, 0), "making an event");
    events_.insert(event);
    return event;
}

void NativeBackend::free_event(Handle event) {
    enter();
    if (events_.erase(event)) calls_.event_destroy(event);
}

void NativeBackend::record(Handle event, Handle queue) {
    enter();
    must(calls_.event_record(event, stream_of(queue)), "recording an event");
}

void NativeBackend::wait(Handle queue, Handle event) {
    enter();
    must(calls_.stream_wait(stream_of(queue), event, 0), "making a stream wait for an event");
}

double NativeBackend::between(Handle first, Handle second) {
    enter();
    float milliseconds = 0.0f;
    must(calls_.event_elapsed(&milliseconds, first, second), "asking for the time between events");
    return milliseconds * 1e-3;
}

Handle NativeBackend::graph(const std::function<void(Handle)> &enqueue_all) {
    enter();
    if (!calls_.begin_capture || !calls_.graph_instantiate) throw Inapplicable("this driver has no graphs");
    const Handle stream = queue(0);
    Object graph = nullptr, run = nullptr;
    must(calls_.begin_capture(stream, kCaptureRelaxed), "beginning to capture a stream");
    try {
        enqueue_all(stream);
    } catch (...) {
        if (calls_.end_capture(stream, &graph) == 0 && graph) calls_.graph_destroy(graph);
        free_queue(stream);
        throw;
    }
    must(calls_.end_capture(stream, &graph), "ending to capture a stream");
    const int status = calls_.graph_instantiate(&run, graph, 0);
    calls_.graph_destroy(graph);
    free_queue(stream);
    must(status, "making a graph");
    graphs_.insert(run);
    return run;
}

void NativeBackend::enqueue_graph(Handle queue, Handle graph) {
    enter();
    must(calls_.graph_launch(graph, stream_of(queue)), "launching a graph");
}

void NativeBackend::free_graph(Handle graph) {
    enter();
    if (graphs_.erase(graph)) calls_.graph_exec_destroy(graph);
}

std::string NativeBackend::export_memory(Handle handle) {
    enter();
    IpcHandle name{};
    const int status = calls_.ipc_get(&name, static_cast<Buffer *>(handle)->address);
    // Neither API has a property that says so beforehand.
    if (status == kNotSupported) throw Inapplicable("the driver shares no memory of this device between processes");
    must(status, "naming memory for another process");
    return std::string(name.reserved, sizeof name.reserved);
}

Handle NativeBackend::import_memory(const std::string &name, std::size_t bytes) {
    enter();
    IpcHandle handle{};
    if (name.size() != sizeof handle.reserved) throw OwnError("that is no name of another process's memory");
    std::memcpy(handle.reserved, name.data(), name.size());
    auto buffer = std::make_unique<Buffer>();
    constexpr unsigned kEnablePeerAccess = 1;
    must(calls_.ipc_open(&buffer->address, handle, kEnablePeerAccess), "opening another process's memory");
    buffer->imported = true;
    buffer->bytes = bytes;
    return *buffers_.insert(buffer.release()).first;
}

bool NativeBackend::reaches(std::size_t other) {
    int can = 0;
    must(calls_.can_access_peer(&can, device_, static_cast<int>(other)), "asking for access to another device");
    return can != 0;
}

std::uint64_t NativeBackend::native_address(Handle buffer) {
    enter();
    return static_cast<Buffer *>(buffer)->address;
}

void *NativeBackend::native_stream(Handle queue) {
    enter();
    return stream_of(queue);
}

}  // namespace gt
