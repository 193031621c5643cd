// SYCL, as DPC++'s runtime library offers it to a program that was compiled by an ordinary C++ compiler: device code is
// handed to libsycl as text (or SPIR-V) and compiled at run time. Memory is unified shared memory throughout.
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <sycl/sycl.hpp>
#include <utility>

#include "gt_api.h"

namespace gt {
namespace {

namespace ext = sycl::ext::oneapi::experimental;
using Bundle = sycl::kernel_bundle<sycl::bundle_state::executable>;
using Executable = ext::command_graph<ext::graph_state::executable>;

struct Buffer {
    void *address = nullptr;
    std::size_t bytes = 0;
    Memory where = Memory::kDevice;
};
struct Module {
    Bundle bundle;
};
struct Kernel {
    sycl::kernel kernel;
};
struct Queue {
    sycl::queue queue;
    std::vector<sycl::event> awaited;  // by what is submitted next
};
struct Event {
    sycl::event event;
    bool recorded = false;
};
struct Graph {
    Executable graph;
};

Cause cause_of(const std::error_code &code) {
    if (code == sycl::errc::memory_allocation) return Cause::kOutOfMemory;
    if (code == sycl::errc::build || code == sycl::errc::kernel_not_supported) return Cause::kBadImage;
    if (code == sycl::errc::nd_range || code == sycl::errc::kernel_argument) return Cause::kLaunch;
    return Cause::kOther;
}

/// Call into SYCL; what it throws becomes a finding.
template <class F>
auto must(const char *what, F call) -> decltype(call()) {
    try {
        return call();
    } catch (const sycl::exception &e) {
        if (e.code() == sycl::errc::feature_not_supported) throw Inapplicable(std::string(what) + ": " + e.what());
        throw ApiFailure(std::string(what) + ": " + e.what(), cause_of(e.code()), e.code().value());
    }
}

/// One object that is owned by the device that is open.
template <class T>
Handle keep(std::set<std::unique_ptr<T>> &all, T one) {
    return all.insert(std::make_unique<T>(std::move(one))).first->get();
}

template <class T>
void drop(std::set<std::unique_ptr<T>> &all, Handle handle) {
    for (auto it = all.begin(); it != all.end(); ++it) {
        if (it->get() == handle) {
            all.erase(it);
            return;
        }
    }
}

class Sycl final : public Backend {
  public:
    ~Sycl() override { release(); }

    void load(const std::string &) override {}  // the library came with this file

    std::vector<DeviceInfo> enumerate() override {
        return must("sycl::device::get_devices", [&] {
            devices_ = sycl::device::get_devices();
            std::vector<DeviceInfo> out;
            for (const sycl::device &device : devices_) out.push_back(describe(device));
            return out;
        });
    }

    void open(std::size_t index) override {
        release();
        device_ = devices_.at(index);
        must("sycl::queue", [&] {
            context_ = std::make_unique<sycl::context>(*device_);
            main_ = std::make_unique<Queue>(Queue{make_queue(0), {}});
        });
    }

    void close() override { release(); }

    Properties properties() override {
        namespace info = sycl::info::device;
        Properties p;
        p.max_group = device_->get_info<info::max_work_group_size>();
        p.shared_bytes = device_->get_info<info::local_mem_size>();
        const std::vector<std::size_t> subgroups = device_->get_info<info::sub_group_sizes>();
        // Where there are several, each kernel is compiled for one of them.
        if (subgroups.size() == 1) p.subgroup = static_cast<std::uint32_t>(subgroups.front());
        p.l2_bytes = device_->get_info<info::global_mem_cache_size>();
        p.clock_hz = device_->get_info<info::max_clock_frequency>() * 1e6;
        // Not from the memory's clock and bus width: Level Zero's driver states the width of addresses for the latter.
        if (device_->has(sycl::aspect::ext_intel_max_mem_bandwidth)) {
            p.memory_bandwidth =
                static_cast<double>(device_->get_info<sycl::ext::intel::info::device::max_mem_bandwidth>());
        }
        p.fp64 = device_->has(sycl::aspect::fp64);
        p.fp16 = device_->has(sycl::aspect::fp16);
        p.int64_atomics = device_->has(sycl::aspect::atomic64);
        p.managed = device_->has(sycl::aspect::usm_shared_allocations);
        p.concurrent_managed = device_->has(sycl::aspect::usm_atomic_shared_allocations);
        p.system_memory = device_->has(sycl::aspect::usm_system_allocations);
        p.graphs = device_->has(sycl::aspect::ext_oneapi_limited_graph);
        p.callbacks = true;
        p.priorities = device_->get_backend() == sycl::backend::ext_oneapi_level_zero;
        p.memory_info = device_->has(sycl::aspect::ext_intel_free_memory);
        return p;
    }

    MemoryInfo memory() override {
        if (!device_->has(sycl::aspect::ext_intel_free_memory)) return Backend::memory();
        return must("free memory", [&] {
            return MemoryInfo{device_->get_info<sycl::ext::intel::info::device::free_memory>(),
                              device_->get_info<sycl::info::device::global_mem_size>()};
        });
    }

    Handle alloc(std::size_t bytes, Memory where) override {
        const auto kind = where == Memory::kDevice   ? sycl::usm::alloc::device
                          : where == Memory::kPinned ? sycl::usm::alloc::host
                                                     : sycl::usm::alloc::shared;
        return must("sycl::malloc", [&] {
            void *address = sycl::malloc(bytes, *device_, *context_, kind);
            if (!address) throw ApiFailure("sycl::malloc gave no memory", Cause::kOutOfMemory);
            return keep(buffers_, Buffer{address, bytes, where});
        });
    }

    void free(Handle handle) override {
        Buffer *buffer = static_cast<Buffer *>(handle);
        if (!buffer) return;
        must("sycl::free", [&] { sycl::free(buffer->address, *context_); });
        drop(buffers_, handle);
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
        return must("queue::memcpy",
                    [&] { return seconds_of(main_->queue.memcpy(at(to), at(from), bytes, taken(*main_))); });
    }

    void prefetch(Handle handle, bool to_device) override {
        const Buffer *buffer = static_cast<Buffer *>(handle);
        if (!to_device) return;  // SYCL 2020 has no way back
        must("queue::prefetch", [&] { main_->queue.prefetch(buffer->address, buffer->bytes).wait_and_throw(); });
    }

    std::vector<CodeTarget> targets() override {
        std::vector<CodeTarget> out;
        if (device_->ext_oneapi_can_build(ext::source_language::spirv)) {
            out.push_back({Form::kIntermediate, "spirv", "spirv", "spv"});
        }
        out.push_back({Form::kSource, "source", "", ""});
        return out;
    }

    Handle module(Form form, const std::string &code) override {
        if (form == Form::kBinary) throw Inapplicable("SYCL takes no native binary");
        std::string log;
        try {
            if (form == Form::kIntermediate) {
                std::vector<std::byte> bytes(code.size());
                std::memcpy(bytes.data(), code.data(), code.size());
                auto source = ext::create_kernel_bundle_from_source(*context_, ext::source_language::spirv, bytes);
                return keep(modules_, Module{ext::build(source, {*device_})});
            }
            auto source = ext::create_kernel_bundle_from_source(*context_, ext::source_language::sycl, code);
            const ext::properties options{ext::build_options{compiler_options()}, ext::save_log{&log}};
            return keep(modules_, Module{ext::build(source, {*device_}, options)});
        } catch (const sycl::exception &e) {
            throw ApiFailure(std::string("SYCL builds no kernels: ") + e.what() + (log.empty() ? "" : ": " + log),
                             Cause::kBadImage, e.code().value());
        }
    }

    void unload(Handle module) override { drop(modules_, module); }

    Handle kernel(Handle module, const char *name) override {
        return must("ext_oneapi_get_kernel", [&] {
            return keep(kernels_, Kernel{static_cast<Module *>(module)->bundle.ext_oneapi_get_kernel(name)});
        });
    }

    double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) override {
        return must("parallel_for", [&] { return seconds_of(start(*main_, kernel, items, group, args)); });
    }

    Handle queue(int priority) override {
        return must("sycl::queue", [&] { return keep(queues_, Queue{make_queue(priority), {}}); });
    }

    void free_queue(Handle queue) override { drop(queues_, queue); }

    void enqueue(Handle queue, Handle kernel, std::size_t items, std::size_t group,
                 const std::vector<Arg> &args) override {
        must("parallel_for", [&] { start(of(queue), kernel, items, group, args); });
    }

    void enqueue_copy(Handle queue, const Place &to, const Place &from, std::size_t bytes) override {
        must("queue::memcpy", [&] { of(queue).queue.memcpy(at(to), at(from), bytes, taken(of(queue))); });
    }

    void enqueue_call(Handle queue, void (*function)(void *), void *data) override {
        must("host_task", [&] { submit_call(of(queue), [=] { function(data); }); });
    }

    void finish(Handle queue) override {
        must("queue::wait", [&] {
            settle(of(queue));
            of(queue).queue.wait_and_throw();
        });
    }

    Handle event() override { return keep(events_, Event{}); }

    void free_event(Handle event) override { drop(events_, event); }

    void record(Handle handle, Handle queue) override {
        Event *event = static_cast<Event *>(handle);
        must("submit_profiling_tag", [&] {
            settle(of(queue));
            event->event = ext::submit_profiling_tag(of(queue).queue);
        });
        event->recorded = true;
    }

    void wait(Handle queue, Handle handle) override {
        const Event *event = static_cast<Event *>(handle);
        if (!event->recorded) throw OwnError("waits for an event that was not recorded");
        // A barrier would say it at once, and hold this thread up as long as a call into the host is before the event.
        of(queue).awaited.push_back(event->event);
    }

    double between(Handle first, Handle second) override {
        return must("get_profiling_info", [&] { return (ended(second) - ended(first)) * 1e-9; });
    }

    Handle graph(const std::function<void(Handle)> &enqueue_all) override {
        return must("command_graph", [&] {
            ext::command_graph<ext::graph_state::modifiable> graph(*context_, *device_);
            Queue recorded{make_queue(0), {}};
            graph.begin_recording(recorded.queue);
            enqueue_all(&recorded);
            graph.end_recording();
            return keep(graphs_, Graph{graph.finalize()});
        });
    }

    void enqueue_graph(Handle queue, Handle graph) override {
        const Executable &executable = static_cast<Graph *>(graph)->graph;
        must("ext_oneapi_graph", [&] { of(queue).queue.ext_oneapi_graph(executable, taken(of(queue))); });
    }

    void free_graph(Handle graph) override { drop(graphs_, graph); }

  private:
    Queue &of(Handle queue) { return queue ? *static_cast<Queue *>(queue) : *main_; }

    /// The events that the next command must wait for; the queue is in order, so that those after it need not.
    static std::vector<sycl::event> taken(Queue &queue) { return std::exchange(queue.awaited, {}); }

    template <class F>
    static void submit_call(Queue &queue, F call) {
        const std::vector<sycl::event> awaited = taken(queue);
        queue.queue.submit([&](sycl::handler &handler) {
            handler.depends_on(awaited);
            handler.host_task(call);
        });
    }

    /// Let the queue itself wait, before something that takes no list of events.
    static void settle(Queue &queue) {
        if (!queue.awaited.empty()) submit_call(queue, [] {});
    }

    sycl::queue make_queue(int priority) {
        const auto thrown = [](sycl::exception_list list) {
            for (const std::exception_ptr &one : list) std::rethrow_exception(one);
        };
        const sycl::property::queue::in_order in_order;
        const sycl::property::queue::enable_profiling profiling;
        if (priority > 0 && device_->get_backend() == sycl::backend::ext_oneapi_level_zero) {
            const sycl::ext::oneapi::property::queue::priority_high first;
            return {*context_, *device_, thrown, {in_order, profiling, first}};
        }
        return {*context_, *device_, thrown, {in_order, profiling}};
    }

    std::vector<std::string> compiler_options() const {
        // As in every other language, what is to be fused is written as such.
        std::vector<std::string> out{"-ffp-contract=off"};
        if (device_->has(sycl::aspect::fp64)) out.push_back("-DGT_HAS_FP64");
        if (device_->has(sycl::aspect::fp16)) out.push_back("-DGT_HAS_FP16");
        if (device_->has(sycl::aspect::atomic64)) out.push_back("-DGT_HAS_INT64_ATOMICS");
        return out;
    }

    static char *at(const Place &place) {
        if (!place.buffer) return static_cast<char *>(place.host);
        return static_cast<char *>(static_cast<Buffer *>(place.buffer)->address) + place.offset;
    }

    static sycl::event start(Queue &queue, Handle kernel, std::size_t items, std::size_t group,
                             const std::vector<Arg> &args) {
        const std::vector<sycl::event> awaited = taken(queue);
        return queue.queue.submit([&](sycl::handler &handler) {
            handler.depends_on(awaited);
            for (int i = 0; i < static_cast<int>(args.size()); ++i) set_argument(handler, i, args[i]);
            const std::size_t global = (items + group - 1) / group * group;
            handler.parallel_for(sycl::nd_range<1>(global, group), static_cast<Kernel *>(kernel)->kernel);
        });
    }

    /// Arguments are bytes: the kernel's own parameter list gives them their types.
    static void set_argument(sycl::handler &handler, int i, const Arg &arg) {
        void *pointer = arg.buffer ? static_cast<Buffer *>(arg.buffer)->address : nullptr;
        if (arg.address) std::memcpy(&pointer, arg.bytes, sizeof pointer);
        if (arg.buffer || arg.address) handler.set_arg(i, pointer);
        else handler.set_arg(i, ext::raw_kernel_arg(arg.bytes, arg.size));
    }

    static double seconds_of(sycl::event event) {
        namespace profiling = sycl::info::event_profiling;
        event.wait_and_throw();
        return static_cast<double>(event.get_profiling_info<profiling::command_end>() -
                                   event.get_profiling_info<profiling::command_start>()) *
               1e-9;
    }

    static double ended(Handle event) {
        using End = sycl::info::event_profiling::command_end;
        return static_cast<double>(static_cast<Event *>(event)->event.get_profiling_info<End>());
    }

    DeviceInfo describe(const sycl::device &device) {
        namespace info = sycl::info::device;
        DeviceInfo out;
        out.name = device.get_info<info::name>();
        out.vendor = device.get_info<info::vendor>();
        out.driver = device.get_info<info::driver_version>();
        out.api_version = device.get_info<info::version>();
        out.platform = device.get_platform().get_info<sycl::info::platform::name>();
        out.kind = device.is_gpu() ? "gpu" : "cpu-runtime";
        out.mem_bytes = device.get_info<info::global_mem_size>();
        out.compute_units = device.get_info<info::max_compute_units>();
        if (device.has(sycl::aspect::ext_intel_pci_address)) {
            out.bdf = device.get_info<sycl::ext::intel::info::device::pci_address>();
        }
        if (device.has(sycl::aspect::ext_intel_device_info_uuid)) {
            char hex[3];
            for (const unsigned char byte : device.get_info<sycl::ext::intel::info::device::uuid>()) {
                std::snprintf(hex, sizeof hex, "%02x", byte);
                out.uuid += hex;
            }
        }
        return out;
    }

    void release() {
        if (!context_) return;
        graphs_.clear(), events_.clear(), kernels_.clear(), modules_.clear(), queues_.clear();
        main_.reset();
        for (const std::unique_ptr<Buffer> &buffer : buffers_) {
            try {
                sycl::free(buffer->address, *context_);
            } catch (const sycl::exception &) {
                // The device is being given back; whoever looks at what is left sees the leak.
            }
        }
        buffers_.clear();
        context_.reset();
    }

    std::vector<sycl::device> devices_;
    // Made late: a default sycl::device chooses one, and throws where there is none.
    std::optional<sycl::device> device_;
    std::unique_ptr<sycl::context> context_;
    std::unique_ptr<Queue> main_;
    std::set<std::unique_ptr<Buffer>> buffers_;
    std::set<std::unique_ptr<Module>> modules_;
    std::set<std::unique_ptr<Kernel>> kernels_;
    std::set<std::unique_ptr<Queue>> queues_;
    std::set<std::unique_ptr<Event>> events_;
    std::set<std::unique_ptr<Graph>> graphs_;
};

}  // namespace
}  // namespace gt

extern "C" gt::Backend *gt_make_sycl() { return new gt::Sycl; }
