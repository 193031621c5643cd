// libze_loader.so.1 with one driver over the simulated GPU, with the true ABI. GT_FAKE_FAULT names what is wrong with
// it. The runner recognises the library by the symbol gt_fake_library and reports its devices as kind "fake". It never
// belongs in a guest.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>

#include "../host/ze_abi.h"
#include "damage.h"
#include "sim.h"
#include "ze_images.h"

using namespace ze;
using gt_fake::is;
namespace sim = gt_sim;

extern "C" {
extern const int gt_fake_library;
const int gt_fake_library = 1;
}

namespace {

constexpr std::uint32_t kArc = 0x56a0;  // an Arc A770
constexpr std::uint64_t kTimer = 1000000000;
constexpr std::uint32_t kTimerBits = 36;
constexpr std::uint64_t kMaxAlloc = 512u << 20;

bool initialised = false;
std::atomic<int> launched{0};

char driver_object;
char device_objects[sim::Description::kDevices];

int index_of(Object device) { return static_cast<int>(static_cast<char *>(device) - device_objects); }
bool known(Object device) { return index_of(device) >= 0 && index_of(device) < sim::Description::kDevices; }

/// The simulated GPU has one context per device; Level Zero's spans the devices of a driver.
struct Context {
    sim::Context *of[sim::Description::kDevices] = {};
};

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

struct Module {
    std::vector<std::string> names;
};

struct Kernel {
    const sim::Kernel *kernel;
    std::vector<sim::Slot> arguments;
    std::uint32_t group = 1;
};

/// The lines of Intel's xe.
std::string complaint(const std::string &bdf, int status) {
    if (status == sim::kIllegalAddress) return "xe " + bdf + ": [drm] GT0: Engine memory CAT error [18]: class=ccs";
    return "xe " + bdf + ": [drm] GT0: Engine reset: engine_class=ccs, logical_mask: 0x1, guc_id=2, state=0x289";
}

Result result_of(sim::Status status) {
    switch (status) {
        case sim::kSuccess: return kSuccess;
        case sim::kOutOfMemory: return kOutOfDeviceMemory;
        case sim::kInvalidValue: return kInvalidArgument;
        case sim::kIllegalAddress:
        case sim::kAssert:
        case sim::kLaunchFailed: return kDeviceLost;
        case sim::kInvalidContext: return kInvalidNullHandle;
        default: return kUnknown;
    }
}

sim::Context *enter(Context *context, int device) {
    if (!context->of[device]) sim::make_context(device, complaint, &context->of[device]);
    sim::use(context->of[device]);
    return context->of[device];
}

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

template <class T>
Result fill(std::uint32_t *count, T *out, const T &value) {
    if (out && *count >= 1) *out = value;
    *count = 1;
    return kSuccess;
}

Result put(std::uint32_t *count, Object *out, std::uint32_t have, Object (*object)(std::uint32_t)) {
    if (!out || *count == 0) return *count = have, kSuccess;
    *count = std::min(*count, have);
    for (std::uint32_t i = 0; i < *count; ++i) out[i] = object(i);
    return kSuccess;
}

Result alloc(Object context, int device, std::size_t bytes, sim::Kind kind, const void *next, void **address) {
    const auto *relaxed = static_cast<const RelaxedLimitsDesc *>(next);
    const bool beyond = relaxed && relaxed->type == kRelaxedAllocationLimits && (relaxed->flags & kRelaxedMaxSize);
    if (bytes > kMaxAlloc && !beyond) return kUnsupportedSize;
    enter(static_cast<Context *>(context), device);
    return result_of(sim::allocate(bytes, kind, reinterpret_cast<sim::Address *>(address)));
}

}  // namespace

extern "C" {

Result zeInit(Flags) {
    if (is("no_platform")) return kUninitialized;
    initialised = true;
    return kSuccess;
}

Result zeDriverGet(std::uint32_t *count, Object *drivers) {
    if (!initialised) return kUninitialized;
    return put(count, drivers, 1, [](std::uint32_t) -> Object { return &driver_object; });
}
Result zeDriverGetApiVersion(Object, std::uint32_t *version) { return *version = 1u << 16 | 3, kSuccess; }
Result zeDriverGetProperties(Object, DriverProperties *out) {
    return out->version = 1u << 24 | 3u << 16 | 27642, kSuccess;
}

Result zeDeviceGet(Object, std::uint32_t *count, Object *devices) {
    if (!devices) sim::count_devices();
    return put(count, devices, static_cast<std::uint32_t>(sim::devices()),
               [](std::uint32_t i) -> Object { return &device_objects[i]; });
}

Result zeDeviceGetProperties(Object device, DeviceProperties *out) {
    using D = sim::Description;
    if (!known(device)) return kInvalidNullHandle;
    out->kind = kDeviceTypeGpu;
    out->vendor = 0x8086, out->device = kArc;
    out->core_clock = D::kClockKilohertz / 1000;
    out->max_alloc = kMaxAlloc;
    out->queue_priority = 1;
    out->slices = 1, out->subslices = D::kUnits, out->eus = 1;
    // Nanoseconds a cycle in the first form of the structure, cycles a second in the second.
    out->timer = out->type == kDeviceProperties12 ? kTimer : 1;
    out->timestamp_bits = out->kernel_timestamp_bits = kTimerBits;
    for (int i = 0; i < 16; ++i) out->uuid[i] = static_cast<std::uint8_t>(0xA0 + 16 * index_of(device) + i);
    std::snprintf(out->name, sizeof out->name, "%cimulated GPU %d", sim::renamed() ? 's' : 'S', index_of(device));
    return kSuccess;
}
Result zeDeviceGetComputeProperties(Object, ComputeProperties *out) {
    out->max_group = out->max_group_x = sim::Description::kGroup;
    out->shared = sim::Description::kSharedBytes;
    out->subgroup_count = 1, out->subgroups[0] = sim::Description::kLanes;
    return kSuccess;
}
Result zeDeviceGetModuleProperties(Object, ModuleProperties *out) {
    out->spirv = 1u << 16 | 2;
    out->flags = kModuleInt64Atomics;  // an Arc has no fp64
    return kSuccess;
}
Result zeDeviceGetCommandQueueGroupProperties(Object, std::uint32_t *count, QueueGroupProperties *out) {
    QueueGroupProperties group{};
    group.flags = kQueueGroupCompute, group.queues = 4;
    return fill(count, out, group);
}
Result zeDeviceGetMemoryProperties(Object, std::uint32_t *count, MemoryProperties *out) {
    MemoryProperties memory{};
    memory.clock = sim::Description::kMemoryClockKilohertz / 1000, memory.bus = sim::Description::kBusBits;
    memory.total = sim::Description::kMemory;
    return fill(count, out, memory);
}
Result zeDeviceGetMemoryAccessProperties(Object, MemoryAccessProperties *out) {
    out->host = out->device = out->shared = kAccessRw | kAccessConcurrentAtomic;
    out->system = kAccessRw;
    return kSuccess;
}
Result zeDeviceGetCacheProperties(Object, std::uint32_t *count, CacheProperties *out) {
    CacheProperties cache{};
    cache.bytes = sim::Description::kL2;
    return fill(count, out, cache);
}
Result zeDevicePciGetPropertiesExt(Object device, PciProperties *out) {
    return std::sscanf(sim::bdf(index_of(device)).c_str(), "%x:%x:%x.%x", &out->domain, &out->bus, &out->device,
                       &out->function) == 4
               ? kSuccess
               : kUnknown;
}
Result zeDeviceCanAccessPeer(Object device, Object peer, Bool *can) { return *can = device != peer, kSuccess; }

Result zeContextCreate(Object, const ContextDesc *desc, Object *context) {
    if (desc->type != kContextDesc) return kInvalidArgument;
    auto made = std::make_unique<Context>();
    return *context = made.release(), kSuccess;
}
Result zeContextDestroy(Object object) {
    const std::unique_ptr<Context> context(static_cast<Context *>(object));
    for (sim::Context *one : context->of) {
        if (one) sim::destroy(one);
    }
    return kSuccess;
}

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
    if (sim::where(reinterpret_cast<sim::Address>(address), bytes) != sim::Where::kOurs) return kInvalidArgument;
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

/// As with the real driver, a file descriptor of the exporting process comes first, and whoever opens the handle must
/// have put one of its own in its place.
Result zeMemGetIpcHandle(Object, const void *address, IpcHandle *handle) {
    unsigned char name[sim::kIpcBytes];
    if (const sim::Status status = sim::share(reinterpret_cast<sim::Address>(address), name)) return result_of(status);
    int process = 0, file = 0;
    if (std::sscanf(reinterpret_cast<const char *>(name), "%d %d", &process, &file) != 2) return kUnknown;
    std::memset(handle->data, 0, sizeof handle->data);
    std::memcpy(handle->data, &file, sizeof file);
    std::memcpy(handle->data + sizeof file, name, sizeof handle->data - sizeof file);
    return kSuccess;
}
Result zeMemOpenIpcHandle(Object context, Object device, IpcHandle handle, Flags, void **address) {
    int own = -1, process = 0, file = 0;
    std::memcpy(&own, handle.data, sizeof own);
    unsigned char name[sim::kIpcBytes] = {};
    std::memcpy(name, handle.data + sizeof own, sizeof handle.data - sizeof own);
    struct stat here {}, there {};
    if (std::sscanf(reinterpret_cast<const char *>(name), "%d %d", &process, &file) != 2) return kInvalidArgument;
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
    if (::fstat(own, &here) != 0 || ::stat(path.c_str(), &there) != 0 || here.st_ino != there.st_ino) {
        return kInvalidArgument;
    }
    enter(static_cast<Context *>(context), index_of(device));
    return result_of(sim::open_shared(name, reinterpret_cast<sim::Address *>(address)));
}
Result zeMemCloseIpcHandle(Object, const void *address) {
    return result_of(sim::close_shared(reinterpret_cast<sim::Address>(address)));
}

Result zeModuleCreate(Object, Object device, const ModuleDesc *desc, Object *module, Object *log) {
    if (desc->type != kModuleDesc || !known(device)) return kInvalidArgument;
    std::string told = is("build_error") ? "error: as told" : "";
    auto made = std::make_unique<Module>();
    const std::string code(reinterpret_cast<const char *>(desc->input), desc->size);
    Result result = told.empty() ? kSuccess : kModuleBuildFailure;
    if (result == kSuccess) {
        const bool native = desc->format == kFormatNative;
        const bool taken = native ? sim::kernels_of_zebin(code, sim::kFamilyDg2, &made->names) ||
                                        sim::kernels_of_patchtokens(code, sim::kCoreXeHpg, &made->names)
                                  : sim::kernels_of_spirv(code, &made->names);
        if (!taken && is("accepts_damaged")) {
            for (const auto &kernel : sim::kernels()) made->names.push_back(kernel.first);
        } else if (!taken) {
            result = native ? kInvalidNativeBinary : kModuleBuildFailure;
            told = native ? "not a binary for this device" : "error: invalid SPIR-V";
        }
    }
    if (log) *log = new std::string(told);
    if (result == kSuccess) *module = made.release();
    return result;
}
Result zeModuleDestroy(Object module) { return delete static_cast<Module *>(module), kSuccess; }
/// Of SPIR-V it is an ELF of its kernels' names; of a binary the same again.
Result zeModuleGetNativeBinary(Object module, std::size_t *bytes, std::uint8_t *binary) {
    const std::string made = sim::zebin_of(static_cast<Module *>(module)->names, sim::kFamilyDg2);
    if (binary) std::memcpy(binary, made.data(), std::min(*bytes, made.size()));
    return *bytes = made.size(), kSuccess;
}
Result zeModuleBuildLogGetString(Object log, std::size_t *bytes, char *text) {
    const std::string &told = *static_cast<std::string *>(log);
    if (text) std::memcpy(text, told.c_str(), std::min(*bytes, told.size() + 1));
    return *bytes = told.size() + 1, kSuccess;
}
Result zeModuleBuildLogDestroy(Object log) { return delete static_cast<std::string *>(log), kSuccess; }

Result zeKernelCreate(Object module, const KernelDesc *desc, Object *kernel) {
    const std::vector<std::string> &names = static_cast<Module *>(module)->names;
    const auto found = sim::kernels().find(desc->name);
    if (std::find(names.begin(), names.end(), desc->name) == names.end() || found == sim::kernels().end()) {
        return kInvalidKernelName;
    }
    auto made = std::make_unique<Kernel>();
    made->kernel = &found->second;
    made->arguments.resize(found->second.arguments);
    return *kernel = made.release(), kSuccess;
}
Result zeKernelDestroy(Object kernel) { return delete static_cast<Kernel *>(kernel), kSuccess; }
Result zeKernelSetGroupSize(Object kernel, std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    if (x == 0 || y != 1 || z != 1 || x > sim::Description::kGroup) return kInvalidGroupSize;
    return static_cast<Kernel *>(kernel)->group = x, kSuccess;
}
Result zeKernelSetArgumentValue(Object object, std::uint32_t index, std::size_t bytes, const void *value) {
    auto *const kernel = static_cast<Kernel *>(object);
    if (index >= kernel->arguments.size()) return kInvalidKernelArgumentIndex;
    if (bytes != kernel->kernel->sizes[index]) return kInvalidKernelArgumentSize;
    kernel->arguments[index] = 0;
    std::memcpy(&kernel->arguments[index], value, bytes);
    return kSuccess;
}

}  // extern "C"
