#include "ze_memory.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace gt {
namespace ze_driver {

using namespace ze;

namespace {

constexpr long kPidfdOpen = 434, kPidfdGetfd = 438;  // C libraries have had no names for them for long
constexpr std::size_t kExporter = 16;                // where a handle of Intel's driver names its process, if it does

/// Newer drivers of Intel's write the process into the handle, and take the descriptor over themselves.
bool names_its_process(std::int32_t pid, const IpcHandle &ipc) {
    std::int32_t named = 0;
    std::memcpy(&named, ipc.data + kExporter, sizeof named);
    return named == pid;
}

/// Take over the descriptor that the handle holds of the other process, and put the own one in its place.
void adopt_descriptor(std::int32_t pid, IpcHandle &ipc) {
    int theirs = -1;
    std::memcpy(&theirs, ipc.data, sizeof theirs);
    const long process = ::syscall(kPidfdOpen, pid, 0);
    const long own = process < 0 ? -1 : ::syscall(kPidfdGetfd, static_cast<int>(process), theirs, 0);
    if (process >= 0) ::close(static_cast<int>(process));
    if (own < 0) throw Inapplicable("this kernel does not let a process take over another one's descriptor");
    const int descriptor = static_cast<int>(own);
    std::memcpy(ipc.data, &descriptor, sizeof descriptor);
}

}  // namespace

bool can_adopt_descriptors() { return ::syscall(kPidfdGetfd, -1, -1, 0) >= 0 || errno != ENOSYS; }

char *address_of(const Place &place) {
    if (!place.buffer) return static_cast<char *>(place.host);
    return static_cast<char *>(static_cast<Buffer *>(place.buffer)->address) + place.offset;
}

Buffer *Buffers::alloc(std::size_t bytes, Memory where) {
    auto buffer = std::make_unique<Buffer>();
    buffer->bytes = bytes;
    buffer->where = where;
    const RelaxedLimitsDesc relaxed;
    DeviceMemDesc on_device;
    HostMemDesc on_host;
    if (bytes > on_.about.max_alloc) on_device.next = on_host.next = &relaxed;
    void **address = &buffer->address;
    const Api &api = on_.api;
    if (where == Memory::kDevice) {
        must(api.zeMemAllocDevice(on_.context, &on_device, bytes, 64, on_.device, address), "zeMemAllocDevice");
    } else if (where == Memory::kPinned) {
        must(api.zeMemAllocHost(on_.context, &on_host, bytes, 64, address), "zeMemAllocHost");
    } else {
        must(api.zeMemAllocShared(on_.context, &on_device, &on_host, bytes, 64, on_.device, address),
             "zeMemAllocShared");
    }
    return keep(std::move(buffer));
}

Buffer *Buffers::alloc_on(Object device, std::size_t bytes) {
    auto buffer = std::make_unique<Buffer>();
    buffer->bytes = bytes;
    const DeviceMemDesc desc;
    must(on_.api.zeMemAllocDevice(on_.context, &desc, bytes, 64, device, &buffer->address), "zeMemAllocDevice");
    return keep(std::move(buffer));
}

void Buffers::free(Buffer *buffer) {
    if (!all_.erase(buffer)) return;
    const std::unique_ptr<Buffer> gone(buffer);
    must(give_back(*gone), "zeMemFree");
}

/// There is no call that moves it back: without the advice the host's next access may do it.
void Buffers::prefetch(const Buffer &buffer, bool to_device, Object list) {
    const std::uint32_t advice = to_device ? kAdviseHere : kAdviseHereNoMore;
    const Result advised = on_.api.zeCommandListAppendMemAdvise(list, on_.device, buffer.address, buffer.bytes, advice);
    // Advice is a wish, which a device may be unable to grant.
    if (advised != kUnsupportedFeature) must(advised, "zeCommandListAppendMemAdvise");
    if (!to_device) return;
    must(on_.api.zeCommandListAppendMemoryPrefetch(list, buffer.address, buffer.bytes),
         "zeCommandListAppendMemoryPrefetch");
}

/// The handle holds a file descriptor of this process, so that the name says which process that is.
std::string Buffers::name_for_others(const Buffer &buffer) {
    IpcHandle ipc;
    must(on_.api.zeMemGetIpcHandle(on_.context, buffer.address, &ipc), "zeMemGetIpcHandle");
    // Whoever opens it takes the descriptor out of this process, which the kernel allows to descendants only.
    ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    const std::int32_t pid = ::getpid();
    std::string name(sizeof pid + sizeof ipc, '\0');
    std::memcpy(&name[0], &pid, sizeof pid);
    std::memcpy(&name[sizeof pid], &ipc, sizeof ipc);
    return name;
}

Buffer *Buffers::open_named(const std::string &name, std::size_t bytes) {
    std::int32_t pid = 0;
    IpcHandle ipc;
    if (name.size() != sizeof pid + sizeof ipc) throw OwnError("that is no name of Level Zero memory");
    std::memcpy(&pid, name.data(), sizeof pid);
    std::memcpy(&ipc, name.data() + sizeof pid, sizeof ipc);
    if (pid != ::getpid() && !names_its_process(pid, ipc)) adopt_descriptor(pid, ipc);
    auto buffer = std::make_unique<Buffer>();
    buffer->bytes = bytes;
    buffer->imported = true;
    must(on_.api.zeMemOpenIpcHandle(on_.context, on_.device, ipc, 0, &buffer->address), "zeMemOpenIpcHandle");
    return keep(std::move(buffer));
}

void Buffers::release() {
    for (Buffer *buffer : all_) {
        give_back(*buffer);
        delete buffer;
    }
    all_.clear();
}

Buffer *Buffers::keep(std::unique_ptr<Buffer> buffer) {
    all_.insert(buffer.get());
    return buffer.release();
}

Result Buffers::give_back(const Buffer &buffer) {
    return buffer.imported ? on_.api.zeMemCloseIpcHandle(on_.context, buffer.address)
                           : on_.api.zeMemFree(on_.context, buffer.address);
}

}  // namespace ze_driver
}  // namespace gt
