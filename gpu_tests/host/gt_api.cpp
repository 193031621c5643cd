// What a backend does where its API has nothing of the kind.
#include "gt_api.h"

#include <cstring>

namespace gt {
namespace {

template <class T>
Arg scalar(T value) {
    Arg arg;
    std::memcpy(arg.bytes, &value, sizeof value);
    arg.size = sizeof value;
    return arg;
}

[[noreturn]] void lacks(const char *what) { throw Inapplicable(std::string("this API has no ") + what); }

}  // namespace

std::vector<BackendEntry> &backends() {
    static std::vector<BackendEntry> list;
    return list;
}

const char *name(Cause cause) {
    switch (cause) {
        case Cause::kOutOfMemory: return "out of memory";
        case Cause::kBadImage: return "bad image";
        case Cause::kIllegalAddress: return "illegal address";
        case Cause::kAssert: return "assertion";
        case Cause::kLaunch: return "launch failure";
        case Cause::kNoDevice: return "no device";
        case Cause::kDeviceLost: return "device lost";
        case Cause::kOther: break;
    }
    return "error";
}

Arg Arg::mem(Handle h) {
    Arg arg;
    arg.buffer = h;
    return arg;
}
Arg Arg::u32(std::uint32_t v) { return scalar(v); }
Arg Arg::u64(std::uint64_t v) { return scalar(v); }
Arg Arg::f32(float v) { return scalar(v); }
Arg Arg::ptr(void *host) {
    Arg arg = scalar(host);
    arg.address = true;
    return arg;
}

MemoryInfo Backend::memory() { lacks("way to ask for free memory"); }
void Backend::prefetch(Handle, bool) {}
std::string Backend::binary(Handle) { lacks("way to get a module's binary back"); }
void Backend::dynamic_shared(Handle, std::size_t) { lacks("shared memory that is asked for at the launch"); }
void Backend::enqueue_call(Handle, void (*)(void *), void *) { lacks("calls into the host from a queue"); }
Handle Backend::graph(const std::function<void(Handle)> &) { lacks("graphs"); }
void Backend::enqueue_graph(Handle, Handle) { lacks("graphs"); }
void Backend::free_graph(Handle) { lacks("graphs"); }
std::string Backend::export_memory(Handle) { lacks("memory that is shared between processes"); }
Handle Backend::import_memory(const std::string &, std::size_t) { lacks("memory that is shared between processes"); }
bool Backend::reaches(std::size_t) { return false; }
Handle Backend::alloc_on(std::size_t, std::size_t) { lacks("access to another device's memory"); }
std::uint64_t Backend::native_address(Handle) { lacks("addresses for other libraries"); }
void *Backend::native_stream(Handle) { lacks("streams for other libraries"); }

}  // namespace gt
