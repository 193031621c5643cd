// The fake Level Zero's memory.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ze_objects.h"

using namespace ze;
using namespace gt_ze;
namespace sim = gt_sim;

namespace {

constexpr std::size_t kExporter = 16, kName = 20;  // places in a handle: the first is the real driver's

Result alloc(Object context, int device, std::size_t bytes, sim::Kind kind, const void *next, void **address) {
    const auto *relaxed = static_cast<const RelaxedLimitsDesc *>(next);
    const bool beyond = relaxed && relaxed->type == kRelaxedAllocationLimits && (relaxed->flags & kRelaxedMaxSize);
    if (bytes > kMaxAlloc && !beyond) return kUnsupportedSize;
    enter(static_cast<Context *>(context), device);
    return result_of(sim::allocate(bytes, kind, reinterpret_cast<sim::Address *>(address)));
}

}  // namespace

extern "C" {

Result zeMemAllocDevice(Object context, const DeviceMemDesc *desc, std::size_t bytes, std::size_t, Object device,
                        void **address) {
    if (desc->type != kDeviceMemAllocDesc || !known(device)) return kInvalidArgument;
    return alloc(context, index_of(device), bytes, sim::Kind::kDevice, desc->next, address);
}
Result zeMemAllocHost(Object context, const HostMemDesc *desc, std::size_t bytes, std::size_t, void **address) {
    if (desc->type != kHostMemAllocDesc) return kInvalidArgument;
    return alloc(context, 0, bytes, sim::Kind::kPinned, desc->next, address);
}
Result zeMemAllocShared(Object context, const DeviceMemDesc *desc, const HostMemDesc *, std::size_t bytes, std::size_t,
                        Object device, void **address) {
    if (desc->type != kDeviceMemAllocDesc || !known(device)) return kInvalidArgument;
    return alloc(context, index_of(device), bytes, sim::Kind::kManaged, desc->next, address);
}
Result zeMemFree(Object, void *address) { return result_of(sim::release(reinterpret_cast<sim::Address>(address))); }

/// As with the real driver, a file descriptor of the exporting process comes first. Without a process at kExporter,
/// whoever opens the handle must have put one of its own in its place; with it, the driver takes it over by itself.
Result zeMemGetIpcHandle(Object, const void *address, IpcHandle *handle) {
    unsigned char name[sim::kIpcBytes];
    if (const sim::Status status = sim::share(reinterpret_cast<sim::Address>(address), name)) return result_of(status);
    int process = 0, file = 0;
    if (std::sscanf(reinterpret_cast<const char *>(name), "%d %d", &process, &file) != 2) return kUnknown;
    std::memset(handle->data, 0, sizeof handle->data);
    std::memcpy(handle->data, &file, sizeof file);
    if (std::getenv("GT_FAKE_IPC_NAMES_PROCESS")) std::memcpy(handle->data + kExporter, &process, sizeof process);
    std::memcpy(handle->data + kName, name, sizeof handle->data - kName);
    return kSuccess;
}
Result zeMemOpenIpcHandle(Object context, Object device, IpcHandle handle, Flags, void **address) {
    int own = -1, exporter = 0, process = 0, file = 0;
    std::memcpy(&own, handle.data, sizeof own);
    std::memcpy(&exporter, handle.data + kExporter, sizeof exporter);
    unsigned char name[sim::kIpcBytes] = {};
    std::memcpy(name, handle.data + kName, sizeof handle.data - kName);
    struct stat here {}, there {};
    if (std::sscanf(reinterpret_cast<const char *>(name), "%d %d", &process, &file) != 2) return kInvalidArgument;
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
    const auto same = [&] {
        return ::fstat(own, &here) == 0 && ::stat(path.c_str(), &there) == 0 && here.st_ino == there.st_ino;
    };
    if (exporter ? exporter != process || own != file : !same()) return kInvalidArgument;
    enter(static_cast<Context *>(context), index_of(device));
    return result_of(sim::open_shared(name, reinterpret_cast<sim::Address *>(address)));
}
Result zeMemCloseIpcHandle(Object, const void *address) {
    return result_of(sim::close_shared(reinterpret_cast<sim::Address>(address)));
}

}  // extern "C"
