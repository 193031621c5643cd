// Level Zero, through its loader libze_loader.so.1.
//
// A queue is an immediate command list with a barrier behind everything, which makes it in-order on drivers of every
// age. A graph is a closed command list that is executed again and again.
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <thread>

#include "gt_api.h"
#include "ocloc.h"
#include "ze_driver.h"

namespace gt {
namespace {

using namespace ze;
using namespace ze_driver;

constexpr std::uint32_t kPoolEvents = 256;

struct Buffer {
    void *address = nullptr;
    std::size_t bytes = 0;
    Memory where = Memory::kDevice;
    bool imported = false;
};

struct Queue {
    Object list = nullptr;      // immediate, or that of a graph which is being recorded
    Object executes = nullptr;  // the command queue that graphs run on; made when first needed
    bool recording = false;
    bool busy = false;
    int priority = 0;
    std::vector<std::thread> callers;
};

struct Event {
    Object event = nullptr;  // null until it is recorded
};

class LevelZero final : public Backend {
  public:
    ~LevelZero() override { release(); }

    void load(const std::string &library) override { api_ = load_driver(library, fake_); }

    std::vector<DeviceInfo> enumerate() override {
        drivers_.clear(), devices_.clear();
        std::vector<DeviceInfo> out;
        for (const Found &found : find_devices(api_)) {
            drivers_.push_back(found.driver);
            devices_.push_back(found.device);
            out.push_back(describe(api_, found, fake_));
        }
        return out;
    }

    void open(std::size_t index) override {
        release();
        device_ = devices_.at(index);
        driver_ = drivers_.at(index);
        about_ = properties_of(api_, device_);
        ordinal_ = compute_ordinal(api_, device_);
        const ContextDesc desc;
        must(api_.zeContextCreate(driver_, &desc, &context_), "zeContextCreate");
        main_.list = make_list(0);
    }

    void close() override { release(); }

    Properties properties() override { return properties_for_tests(api_, device_, about_); }

    Handle alloc(std::size_t bytes, Memory where) override {
        auto buffer = std::make_unique<Buffer>();
        buffer->bytes = bytes;
        buffer->where = where;
        const RelaxedLimitsDesc relaxed;
        DeviceMemDesc on_device;
        HostMemDesc on_host;
        if (bytes > about_.max_alloc) on_device.next = on_host.next = &relaxed;
        if (where == Memory::kDevice) {
            must(api_.zeMemAllocDevice(context_, &on_device, bytes, 64, device_, &buffer->address), "zeMemAllocDevice");
        } else if (where == Memory::kPinned) {
            must(api_.zeMemAllocHost(context_, &on_host, bytes, 64, &buffer->address), "zeMemAllocHost");
        } else {
            must(api_.zeMemAllocShared(context_, &on_device, &on_host, bytes, 64, device_, &buffer->address),
                 "zeMemAllocShared");
        }
        return keep(buffers_, std::move(buffer));
    }

    void free(Handle handle) override {
        Buffer *buffer = static_cast<Buffer *>(handle);
        if (!buffers_.erase(buffer)) return;
        const std::unique_ptr<Buffer> gone(buffer);
        must(give_back(*gone), "zeMemFree");
    }

    void *address(Handle handle) override {
        const Buffer *buffer = static_cast<Buffer *>(handle);
        return buffer->where == Memory::kDevice ? nullptr : buffer->address;
    }

    void write(Handle buffer, const void *from, std::size_t bytes, std::size_t offset) override {
        copy(Place::in(buffer, offset), Place::from(from), bytes);
    }

    void read(Handle buffer, void *into, std::size_t bytes, std::size_t offset) override {
        copy(Place::at(into), Place::in(buffer, offset), bytes);
    }

    double copy(const Place &to, const Place &from, std::size_t bytes) override {
        return timed([&](Object event) {
            must(api_.zeCommandListAppendMemoryCopy(main_.list, at(to), at(from), bytes, event, 0, nullptr),
                 "zeCommandListAppendMemoryCopy");
        });
    }

    void prefetch(Handle handle, bool to_device) override {
        const Buffer *buffer = static_cast<Buffer *>(handle);
        if (!to_device) return;  // Level Zero has no way back
        must(api_.zeCommandListAppendMemoryPrefetch(main_.list, buffer->address, buffer->bytes),
             "zeCommandListAppendMemoryPrefetch");
        finish(nullptr);
    }

    std::vector<CodeTarget> targets() override {
        std::vector<CodeTarget> out;
        const std::string own = target_of(about_);
        if (!own.empty()) out.push_back({Form::kBinary, "binary", own, "bin"});
        out.push_back({Form::kIntermediate, "spirv", "spirv", "spv"});
        if (ocloc_there()) out.push_back({Form::kSource, "source", "", ""});
        return out;
    }

    Handle module(Form form, const std::string &code) override {
        const std::string compiled = form == Form::kSource ? ocloc_compile(code, about_.device) : code;
        ModuleDesc desc;
        desc.format = form == Form::kBinary ? kFormatNative : kFormatSpirv;
        desc.size = compiled.size();
        desc.input = reinterpret_cast<const std::uint8_t *>(compiled.data());
        Object module = nullptr, log = nullptr;
        const Result status = api_.zeModuleCreate(context_, device_, &desc, &module, &log);
        const std::string told = take_log(api_, log);
        if (status != kSuccess) {
            char text[80];
            std::snprintf(text, sizeof text, "zeModuleCreate failed with Level Zero error 0x%08x", status);
            throw ApiFailure(text + (told.empty() ? "" : ": " + told), cause_of(status), static_cast<long>(status));
        }
        modules_.insert(module);
        return module;
    }

    void unload(Handle module) override {
        if (!modules_.erase(module)) return;
        // Kernels go before their module.
        for (auto it = kernels_.begin(); it != kernels_.end();) {
            if (it->second == module) {
                api_.zeKernelDestroy(it->first);
                it = kernels_.erase(it);
            } else {
                ++it;
            }
        }
        api_.zeModuleDestroy(module);
    }

    std::string binary(Handle module) override {
        std::size_t size = 0;
        must(api_.zeModuleGetNativeBinary(module, &size, nullptr), "zeModuleGetNativeBinary");
        std::string out(size, '\0');
        auto *bytes = reinterpret_cast<std::uint8_t *>(&out[0]);
        must(api_.zeModuleGetNativeBinary(module, &size, bytes), "zeModuleGetNativeBinary");
        return out;
    }

    Handle kernel(Handle module, const char *name) override {
        KernelDesc desc;
        desc.name = name;
        Object kernel = nullptr;
        must(api_.zeKernelCreate(module, &desc, &kernel), "zeKernelCreate");
        kernels_.insert({kernel, module});
        return kernel;
    }

    double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) override {
        return timed([&](Object event) { start(main_.list, kernel, items, group, args, event); });
    }

    Handle queue(int priority) override {
        auto made = std::make_unique<Queue>();
        made->priority = priority;
        made->list = make_list(priority);
        return keep(queues_, std::move(made));
    }

    void free_queue(Handle handle) override {
        Queue *queue = static_cast<Queue *>(handle);
        if (!queues_.erase(queue)) return;
        release(*queue);
        delete queue;
    }

    void enqueue(Handle handle, Handle kernel, std::size_t items, std::size_t group,
                 const std::vector<Arg> &args) override {
        Queue &queue = of(handle);
        start(queue.list, kernel, items, group, args, nullptr);
        then(queue);
    }

    void enqueue_copy(Handle handle, const Place &to, const Place &from, std::size_t bytes) override {
        Queue &queue = of(handle);
        must(api_.zeCommandListAppendMemoryCopy(queue.list, at(to), at(from), bytes, nullptr, 0, nullptr),
             "zeCommandListAppendMemoryCopy");
        then(queue);
    }

    /// Level Zero calls nobody back: a thread waits until the queue gets there, and lets it go on afterwards.
    void enqueue_call(Handle handle, void (*function)(void *), void *data) override {
        Queue &queue = of(handle);
        if (queue.recording) throw Inapplicable("a command list of Level Zero calls nobody");
        const Object reached = new_event(), done = new_event();
        barrier(queue, reached, 0, nullptr);
        Object waits = done;
        barrier(queue, nullptr, 1, &waits);
        queue.callers.emplace_back([this, reached, done, function, data] {
            // An error appears to whoever waits for the queue; the device must not be left waiting for us.
            if (api_.zeEventHostSynchronize(reached, kForever) == kSuccess) function(data);
            api_.zeEventHostSignal(done);
        });
    }

    void finish(Handle handle) override {
        Queue &queue = of(handle);
        const Object done = new_event();
        barrier(queue, done, 0, nullptr);
        must(api_.zeEventHostSynchronize(done, kForever), "zeEventHostSynchronize");
        join(queue);
        queue.busy = false;
        recycle();
    }

    Handle event() override { return keep(events_, std::make_unique<Event>()); }

    void free_event(Handle handle) override {
        Event *event = static_cast<Event *>(handle);
        if (events_.erase(event)) delete event;  // what it recorded is recycled with all others
    }

    void record(Handle handle, Handle queue) override {
        const Object event = new_event();
        barrier(of(queue), event, 0, nullptr);
        static_cast<Event *>(handle)->event = event;
    }

    void wait(Handle queue, Handle handle) override {
        Object event = static_cast<Event *>(handle)->event;
        if (!event) throw OwnError("waits for an event that was not recorded");
        barrier(of(queue), nullptr, 1, &event);
    }

    double between(Handle first, Handle second) override {
        return seconds(stamps(static_cast<Event *>(first)->event).global_end,
                       stamps(static_cast<Event *>(second)->event).global_end);
    }

    Handle graph(const std::function<void(Handle)> &enqueue_all) override {
        Queue recorded;
        recorded.recording = true;
        ListDesc desc;
        desc.ordinal = ordinal_;
        must(api_.zeCommandListCreate(context_, device_, &desc, &recorded.list), "zeCommandListCreate");
        graphs_.insert(recorded.list);
        enqueue_all(&recorded);
        must(api_.zeCommandListClose(recorded.list), "zeCommandListClose");
        return recorded.list;
    }

    /// The command queue that executes the list, and the queue it is enqueued in, wait for each other by events.
    void enqueue_graph(Handle handle, Handle graph) override {
        Queue &queue = of(handle);
        if (!queue.executes) {
            QueueDesc desc = queue_desc(queue.priority);
            must(api_.zeCommandQueueCreate(context_, device_, &desc, &queue.executes), "zeCommandQueueCreate");
        }
        Object before = new_event(), after = new_event();
        barrier(queue, before, 0, nullptr);
        Object lists[] = {short_list(nullptr, &before), graph, short_list(after, nullptr)};
        must(api_.zeCommandQueueExecuteCommandLists(queue.executes, 3, lists, nullptr),
             "zeCommandQueueExecuteCommandLists");
        barrier(queue, nullptr, 1, &after);
    }

    void free_graph(Handle graph) override {
        if (graphs_.erase(graph)) api_.zeCommandListDestroy(graph);
    }

    /// The handle holds a file descriptor of this process, so that the name says which process that is.
    std::string export_memory(Handle handle) override {
        const Buffer *buffer = static_cast<Buffer *>(handle);
        IpcHandle ipc;
        must(api_.zeMemGetIpcHandle(context_, buffer->address, &ipc), "zeMemGetIpcHandle");
        // Whoever opens it takes the descriptor out of this process, which the kernel allows to descendants only.
        ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        const std::int32_t pid = ::getpid();
        std::string name(sizeof pid + sizeof ipc, '\0');
        std::memcpy(&name[0], &pid, sizeof pid);
        std::memcpy(&name[sizeof pid], &ipc, sizeof ipc);
        return name;
    }

    Handle import_memory(const std::string &name, std::size_t bytes) override {
        std::int32_t pid = 0;
        IpcHandle ipc;
        if (name.size() != sizeof pid + sizeof ipc) throw OwnError("that is no name of Level Zero memory");
        std::memcpy(&pid, name.data(), sizeof pid);
        std::memcpy(&ipc, name.data() + sizeof pid, sizeof ipc);
        if (pid != ::getpid()) adopt_descriptor(pid, ipc);
        auto buffer = std::make_unique<Buffer>();
        buffer->bytes = bytes;
        buffer->imported = true;
        must(api_.zeMemOpenIpcHandle(context_, device_, ipc, 0, &buffer->address), "zeMemOpenIpcHandle");
        return keep(buffers_, std::move(buffer));
    }

    bool reaches(std::size_t other) override {
        if (drivers_.at(other) != driver_ || devices_.at(other) == device_) return false;
        Bool can = 0;
        must(api_.zeDeviceCanAccessPeer(device_, devices_[other], &can), "zeDeviceCanAccessPeer");
        return can != 0;
    }

    Handle alloc_on(std::size_t other, std::size_t bytes) override {
        auto buffer = std::make_unique<Buffer>();
        buffer->bytes = bytes;
        const DeviceMemDesc desc;
        void **address = &buffer->address;
        must(api_.zeMemAllocDevice(context_, &desc, bytes, 64, devices_.at(other), address), "zeMemAllocDevice");
        return keep(buffers_, std::move(buffer));
    }

  private:
    template <class T>
    static T *keep(std::set<T *> &all, std::unique_ptr<T> one) {
        all.insert(one.get());
        return one.release();
    }

    QueueDesc queue_desc(int priority) const {
        QueueDesc desc;
        desc.ordinal = ordinal_;
        if (priority > 0 && about_.queue_priority > 0) desc.priority = kPriorityHigh;
        return desc;
    }

    Object make_list(int priority) {
        const QueueDesc desc = queue_desc(priority);
        Object list = nullptr;
        must(api_.zeCommandListCreateImmediate(context_, device_, &desc, &list), "zeCommandListCreateImmediate");
        return list;
    }

    /// A closed list that waits for one event, or signals one.
    Object short_list(Object signals, Object *waits) {
        ListDesc desc;
        desc.ordinal = ordinal_;
        Object list = nullptr;
        must(api_.zeCommandListCreate(context_, device_, &desc, &list), "zeCommandListCreate");
        short_lists_.push_back(list);
        must(api_.zeCommandListAppendBarrier(list, signals, waits ? 1 : 0, waits), "zeCommandListAppendBarrier");
        must(api_.zeCommandListClose(list), "zeCommandListClose");
        return list;
    }

    Queue &of(Handle queue) { return queue ? *static_cast<Queue *>(queue) : main_; }

    static char *at(const Place &place) {
        if (!place.buffer) return static_cast<char *>(place.host);
        return static_cast<char *>(static_cast<Buffer *>(place.buffer)->address) + place.offset;
    }

    void barrier(Queue &queue, Object signals, std::uint32_t waits, Object *events) {
        must(api_.zeCommandListAppendBarrier(queue.list, signals, waits, events), "zeCommandListAppendBarrier");
        queue.busy = true;
    }

    /// What follows begins after what was appended just now.
    void then(Queue &queue) { barrier(queue, nullptr, 0, nullptr); }

    void start(Object list, Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args,
               Object event) {
        for (std::uint32_t i = 0; i < args.size(); ++i) {
            const Arg &arg = args[i];
            if (arg.buffer) {
                void *const *address = &static_cast<Buffer *>(arg.buffer)->address;
                must(api_.zeKernelSetArgumentValue(kernel, i, sizeof(void *), address), "zeKernelSetArgumentValue");
            } else {
                must(api_.zeKernelSetArgumentValue(kernel, i, arg.size, arg.bytes), "zeKernelSetArgumentValue");
            }
        }
        must(api_.zeKernelSetGroupSize(kernel, static_cast<std::uint32_t>(group), 1, 1), "zeKernelSetGroupSize");
        GroupCount count;
        count.x = static_cast<std::uint32_t>((items + group - 1) / group);
        must(api_.zeCommandListAppendLaunchKernel(list, kernel, &count, event, 0, nullptr),
             "zeCommandListAppendLaunchKernel");
    }

    /// Append one thing to the device's own queue, wait for it, and return how long it took the device.
    template <class F>
    double timed(F append) {
        const Object event = new_event();
        append(event);
        then(main_);
        must(api_.zeEventHostSynchronize(event, kForever), "zeEventHostSynchronize");
        const Timestamps stamp = stamps(event);
        main_.busy = false;
        recycle();
        return seconds(stamp.global_start, stamp.global_end);
    }

    Timestamps stamps(Object event) {
        if (!event) throw OwnError("asks for the time of an event that was not recorded");
        Timestamps out{};
        must(api_.zeEventQueryKernelTimestamp(event, &out), "zeEventQueryKernelTimestamp");
        return out;
    }

    /// Timestamps have fewer bits than their type, and wrap.
    double seconds(std::uint64_t first, std::uint64_t last) const {
        const std::uint32_t bits = about_.kernel_timestamp_bits;
        const std::uint64_t mask = bits == 0 || bits >= 64 ? ~0ull : (1ull << bits) - 1;
        if (about_.timer == 0) throw ApiFailure("the driver gives its timer no resolution");
        return static_cast<double>((last - first) & mask) / static_cast<double>(about_.timer);
    }

    Object new_event() {
        if (free_.empty()) {
            EventPoolDesc pool_desc;
            pool_desc.count = kPoolEvents;
            Object pool = nullptr;
            must(api_.zeEventPoolCreate(context_, &pool_desc, 1, &device_, &pool), "zeEventPoolCreate");
            pools_.push_back(pool);
            for (std::uint32_t i = 0; i < kPoolEvents; ++i) {
                EventDesc desc;
                desc.index = i;
                Object event = nullptr;
                must(api_.zeEventCreate(pool, &desc, &event), "zeEventCreate");
                free_.push_back(event);
            }
        }
        const Object event = free_.back();
        free_.pop_back();
        used_.push_back(event);
        return event;
    }

    /// Events may be used again when nothing is under way that could signal or wait for them.
    void recycle() {
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
                must(api_.zeEventHostReset(event), "zeEventHostReset");
                free_.push_back(event);
            }
        }
        used_ = std::move(still);
        for (Object list : short_lists_) api_.zeCommandListDestroy(list);
        short_lists_.clear();
    }

    static void join(Queue &queue) {
        for (std::thread &caller : queue.callers) caller.join();
        queue.callers.clear();
    }

    void adopt_descriptor(std::int32_t pid, IpcHandle &ipc) {
        int theirs = -1;
        std::memcpy(&theirs, ipc.data, sizeof theirs);
        const long process = ::syscall(434 /* pidfd_open */, pid, 0);
        const long own = process < 0 ? -1 : ::syscall(438 /* pidfd_getfd */, static_cast<int>(process), theirs, 0);
        if (process >= 0) ::close(static_cast<int>(process));
        if (own < 0) throw Inapplicable("this kernel does not let a process take over another one's descriptor");
        const int descriptor = static_cast<int>(own);
        std::memcpy(ipc.data, &descriptor, sizeof descriptor);
    }

    Result give_back(const Buffer &buffer) {
        return buffer.imported ? api_.zeMemCloseIpcHandle(context_, buffer.address)
                               : api_.zeMemFree(context_, buffer.address);
    }

    void release(Queue &queue) {
        join(queue);
        if (queue.executes) api_.zeCommandQueueDestroy(queue.executes);
        if (queue.list) api_.zeCommandListDestroy(queue.list);
        queue.executes = queue.list = nullptr;
        queue.busy = false;
    }

    void release() {
        if (!context_) return;
        for (Event *event : events_) delete event;
        for (Queue *queue : queues_) {
            release(*queue);
            delete queue;
        }
        release(main_);
        for (Object list : short_lists_) api_.zeCommandListDestroy(list);
        for (Object graph : graphs_) api_.zeCommandListDestroy(graph);
        for (Object event : free_) api_.zeEventDestroy(event);
        for (Object event : used_) api_.zeEventDestroy(event);
        for (Object pool : pools_) api_.zeEventPoolDestroy(pool);
        for (const auto &kernel : kernels_) api_.zeKernelDestroy(kernel.first);
        for (Object module : modules_) api_.zeModuleDestroy(module);
        for (Buffer *buffer : buffers_) {
            give_back(*buffer);
            delete buffer;
        }
        events_.clear(), queues_.clear(), short_lists_.clear(), graphs_.clear(), free_.clear(), used_.clear();
        pools_.clear(), kernels_.clear(), modules_.clear(), buffers_.clear();
        api_.zeContextDestroy(context_);
        context_ = nullptr;
    }

    Api api_;
    bool fake_ = false;
    std::vector<Object> drivers_, devices_;  // by the index that enumerate gives
    Object driver_ = nullptr, device_ = nullptr, context_ = nullptr;
    DeviceProperties about_{};
    std::uint32_t ordinal_ = 0;
    Queue main_;
    std::set<Buffer *> buffers_;
    std::set<Queue *> queues_;
    std::set<Event *> events_;
    std::set<Object> modules_, graphs_;
    std::set<std::pair<Object, Object>> kernels_;  // (kernel, its module)
    std::vector<Object> pools_, free_, used_, short_lists_;
};

GT_BACKEND("level-zero", LevelZero);

}  // namespace
}  // namespace gt
