// Level Zero, through its loader libze_loader.so.1.
#include <memory>

#include "gt_api.h"
#include "ze_code.h"
#include "ze_memory.h"
#include "ze_queues.h"
#include "ze_sysman.h"

namespace gt {
namespace {

using namespace ze;
using namespace ze_driver;

class LevelZero final : public Backend {
  public:
    ~LevelZero() override { release(); }

    void load(const std::string &library) override { on_.api = load_driver(library, fake_); }

    std::vector<DeviceInfo> enumerate() override {
        drivers_.clear(), devices_.clear();
        std::vector<DeviceInfo> out;
        for (const Found &found : find_devices(on_.api)) {
            drivers_.push_back(found.driver);
            devices_.push_back(found.device);
            out.push_back(describe(on_.api, found, fake_));
        }
        return out;
    }

    void open(std::size_t index) override {
        release();
        on_.device = devices_.at(index);
        on_.driver = drivers_.at(index);
        on_.about = properties_of(on_.api, on_.device);
        on_.ordinal = compute_ordinal(on_.api, on_.device);
        const ContextDesc desc;
        must(on_.api.zeContextCreate(on_.driver, &desc, &on_.context), "zeContextCreate");
        queues_.open();
    }

    void close() override { release(); }

    Properties properties() override {
        Properties p = properties_for_tests(on_.api, on_.device, on_.about);
        if (!sysman_) sysman_ = std::make_unique<Sysman>(on_);
        p.memory_info = sysman_->tells();
        p.ipc = can_adopt_descriptors();
        return p;
    }

    MemoryInfo memory() override {
        if (!properties().memory_info) throw Inapplicable("the driver does not tell how much memory is free");
        return sysman_->memory();
    }

    // --- memory
    Handle alloc(std::size_t bytes, Memory where) override { return buffers_.alloc(bytes, where); }

    void free(Handle buffer) override { buffers_.free(static_cast<Buffer *>(buffer)); }

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
        return queues_.timed([&](Object list, Object event) { append_copy(list, to, from, bytes, event); });
    }

    void prefetch(Handle handle, bool to_device) override {
        buffers_.prefetch(*static_cast<Buffer *>(handle), to_device, queues_.of(nullptr).list);
        finish(nullptr);
    }

    // --- device code
    std::vector<CodeTarget> targets() override { return code_.targets(); }
    Handle module(Form form, const std::string &code) override { return code_.module(form, code); }
    void unload(Handle module) override { code_.unload(module); }
    std::string binary(Handle module) override { return code_.binary(module); }
    Handle kernel(Handle module, const char *name) override { return code_.kernel(module, name); }

    double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) override {
        return queues_.timed(
            [&](Object list, Object event) { append_launch(on_, list, kernel, items, group, args, event); });
    }

    // --- work that is not waited for
    Handle queue(int priority) override { return queues_.make(priority); }
    void free_queue(Handle queue) override { queues_.free(static_cast<Queue *>(queue)); }

    void enqueue(Handle handle, Handle kernel, std::size_t items, std::size_t group,
                 const std::vector<Arg> &args) override {
        Queue &queue = queues_.of(handle);
        append_launch(on_, queue.list, kernel, items, group, args, nullptr);
        queues_.then(queue);
    }

    void enqueue_copy(Handle handle, const Place &to, const Place &from, std::size_t bytes) override {
        Queue &queue = queues_.of(handle);
        append_copy(queue.list, to, from, bytes, nullptr);
        queues_.then(queue);
    }

    void enqueue_call(Handle queue, void (*function)(void *), void *data) override {
        queues_.call(queues_.of(queue), function, data);
    }

    void finish(Handle queue) override { queues_.finish(queues_.of(queue)); }
    Handle event() override { return queues_.make_event(); }
    void free_event(Handle event) override { queues_.free(static_cast<Event *>(event)); }
    void record(Handle event, Handle queue) override {
        queues_.record(*static_cast<Event *>(event), queues_.of(queue));
    }
    void wait(Handle queue, Handle event) override { queues_.wait(queues_.of(queue), *static_cast<Event *>(event)); }

    double between(Handle first, Handle second) override {
        return queues_.between(*static_cast<Event *>(first), *static_cast<Event *>(second));
    }

    Handle graph(const std::function<void(Handle)> &enqueue_all) override { return queues_.graph(enqueue_all); }
    void enqueue_graph(Handle queue, Handle graph) override { queues_.enqueue_graph(queues_.of(queue), graph); }
    void free_graph(Handle graph) override { queues_.free_graph(graph); }

    // --- between processes and devices
    std::string export_memory(Handle buffer) override {
        return buffers_.name_for_others(*static_cast<Buffer *>(buffer));
    }

    Handle import_memory(const std::string &name, std::size_t bytes) override {
        return buffers_.open_named(name, bytes);
    }

    bool reaches(std::size_t other) override {
        if (drivers_.at(other) != on_.driver || devices_.at(other) == on_.device) return false;
        Bool can = 0;
        must(on_.api.zeDeviceCanAccessPeer(on_.device, devices_[other], &can), "zeDeviceCanAccessPeer");
        return can != 0;
    }

    Handle alloc_on(std::size_t other, std::size_t bytes) override {
        return buffers_.alloc_on(devices_.at(other), bytes);
    }

  private:
    void append_copy(Object list, const Place &to, const Place &from, std::size_t bytes, Object event) {
        must(on_.api.zeCommandListAppendMemoryCopy(list, address_of(to), address_of(from), bytes, event, 0, nullptr),
             "zeCommandListAppendMemoryCopy");
    }

    void release() {
        if (!on_.context) return;
        sysman_.reset();
        queues_.release();
        code_.release();
        buffers_.release();
        on_.api.zeContextDestroy(on_.context);
        on_.context = nullptr;
    }

    Opened on_;
    bool fake_ = false;
    std::vector<Object> drivers_, devices_;  // by the index that enumerate gives
    Queues queues_{on_};
    Code code_{on_};
    Buffers buffers_{on_};
    std::unique_ptr<Sysman> sysman_;  // asked for when first needed
};

GT_BACKEND("level-zero", LevelZero);

}  // namespace
}  // namespace gt
