// The backend table: what a compute API must offer for every test to run on it.
//
// A backend is one file host/be_<name>.cpp that implements `Backend` by loading the driver's own library at run time
// (no vendor header, no link dependency) and registers itself. Tests are written once against this table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace gt {

/// The API is not installed here (its library is absent): the test is skipped.
struct Unavailable : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What a driver's error means, as far as tests tell errors apart.
enum class Cause {
    kOther,
    kOutOfMemory,
    kBadImage,        // device code that the driver refuses: damaged, for another device, or newer than the driver
    kIllegalAddress,  // a kernel touched memory that is not its own
    kAssert,          // a kernel's assertion failed
    kLaunch,          // a launch failed or was refused otherwise
    kNoDevice,
    kDeviceLost,      // the device or its context is gone: reset, hung, fallen off the bus
};
const char *name(Cause cause);

/// The API refused or broke: a finding about the product under test, unless the test asked for it.
struct ApiFailure : std::runtime_error {
    explicit ApiFailure(const std::string &what, Cause cause = Cause::kOther, long code = 0)
        : std::runtime_error(what), cause(cause), code(code) {}
    Cause cause;
    long code;  // the API's own number
};

/// The device or the API does not have what the test is about: the test is skipped, with this reason.
struct Inapplicable : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Our own fault (a missing kernel file, wrong usage): says nothing about the product.
struct OwnError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// One device as its driver describes it. Empty strings: the driver does not tell.
struct DeviceInfo {
    std::string name;
    std::string vendor;
    std::string driver;
    std::string api_version;
    std::string platform;
    std::string bdf;   // PCI address 0000:01:00.0
    std::string uuid;  // lower-case hex
    std::string kind;  // gpu | cpu-runtime | fake
    std::uint64_t mem_bytes = 0;
    std::uint32_t compute_units = 0;

    bool operator==(const DeviceInfo &o) const {
        return name == o.name && vendor == o.vendor && driver == o.driver && api_version == o.api_version &&
               platform == o.platform && bdf == o.bdf && uuid == o.uuid && kind == o.kind &&
               mem_bytes == o.mem_bytes && compute_units == o.compute_units;
    }
    bool operator!=(const DeviceInfo &o) const { return !(*this == o); }
};

/// What the opened device can do and how fast its parts are. 0, false or empty: no, or the driver does not tell.
struct Properties {
    std::string architecture;          // sm_90, gfx942, …
    std::size_t max_group = 0;         // work items of a group
    std::size_t shared_bytes = 0;      // of one group
    std::uint32_t subgroup = 0;        // width of a warp, wavefront or sub-group
    std::uint32_t matrix_subgroup = 0; // width of a sub-group that has Intel's matrix functions
    std::uint64_t l2_bytes = 0;
    double clock_hz = 0.0;             // highest clock of the compute units
    double memory_clock_hz = 0.0;      // of the memory's command clock: data moves on both edges
    std::uint32_t memory_bus_bits = 0;
    double memory_bandwidth = 0.0;     // bytes a second, from a driver that states it instead of the two before
    bool fp64 = false;
    bool fp16 = false;
    bool int64_atomics = false;
    bool managed = false;              // Memory::kManaged works
    bool concurrent_managed = false;   // host and device may touch managed memory at the same time
    bool system_memory = false;        // kernels may follow any pointer of the process (HMM, ATS, system SVM)
    bool graphs = false;
    bool callbacks = false;            // enqueue_call
    bool priorities = false;
    bool ipc = false;
    std::uint64_t printf_bytes = 0;    // of the buffer that holds what kernels print until somebody waits for them
    bool memory_info = false;          // memory() tells the truth
};

/// A buffer, module, kernel, queue, event or graph, owned by the backend until it is freed or the device is closed.
using Handle = void *;

enum class Memory {
    kDevice,
    kPinned,   // host memory that the device reaches by DMA
    kManaged,  // one address for both: CUDA managed memory, SVM, shared USM
};

/// The forms in which device code reaches a driver.
enum class Form { kBinary, kIntermediate, kSource };

/// Code that the opened device takes, if an artefact is at hand: artefacts/<directory>/<kernel>.<extension>.
struct CodeTarget {
    Form form;
    std::string name;       // binary | ptx | spirv | source: what results call it
    std::string directory;  // sm_90, compute_52, gfx90a, spirv; empty for source
    std::string extension;  // cubin, ptx, hsaco, spv, bin
};

/// One kernel argument: a buffer, a host address, or a scalar of up to 8 bytes.
struct Arg {
    Handle buffer = nullptr;
    unsigned char bytes[8] = {};
    std::size_t size = 0;      // 0: a buffer
    bool address = false;      // bytes hold an address of this process (system_memory)

    static Arg mem(Handle h);
    static Arg u32(std::uint32_t v);
    static Arg u64(std::uint64_t v);
    static Arg f32(float v);
    static Arg ptr(void *host);
};

/// Where a copy starts or ends: in a buffer, or in memory of this process.
struct Place {
    Handle buffer = nullptr;
    std::size_t offset = 0;
    void *host = nullptr;

    static Place in(Handle buffer, std::size_t offset = 0) { return {buffer, offset, nullptr}; }
    static Place at(void *host) { return {nullptr, 0, host}; }
    static Place from(const void *host) { return {nullptr, 0, const_cast<void *>(host)}; }
};

struct MemoryInfo {
    std::uint64_t free = 0, total = 0;
};

/// All sizes are in bytes, all times in seconds. Every failure of the API is thrown as ApiFailure. What a backend does
/// not have throws Inapplicable; `properties` tells beforehand. Queues are in-order; the null handle is the queue
/// that `open` makes.
class Backend {
  public:
    virtual ~Backend() = default;

    // --- devices
    /// Load the driver library; throws Unavailable when it is absent.
    virtual void load(const std::string &library) = 0;
    /// Ask the driver anew which devices there are; the order is the driver's.
    virtual std::vector<DeviceInfo> enumerate() = 0;
    /// Make the index-th device of the last enumeration the one in use: a context and one in-order queue.
    virtual void open(std::size_t index) = 0;
    /// Give back everything that `open` made and everything made since; the device may be opened again.
    virtual void close() = 0;
    virtual Properties properties() = 0;
    virtual MemoryInfo memory();

    // --- memory
    virtual Handle alloc(std::size_t bytes, Memory where = Memory::kDevice) = 0;
    virtual void free(Handle buffer) = 0;
    /// The address in this process of pinned or managed memory.
    virtual void *address(Handle buffer) = 0;
    /// These copies return when the data has arrived.
    virtual void write(Handle buffer, const void *from, std::size_t bytes, std::size_t offset = 0) = 0;
    virtual void read(Handle buffer, void *into, std::size_t bytes, std::size_t offset = 0) = 0;
    /// Copy, wait, and return the device's own time for it.
    virtual double copy(const Place &to, const Place &from, std::size_t bytes) = 0;
    /// Move managed memory to the device or back, ahead of its use. Where the API has no such call, nothing happens.
    virtual void prefetch(Handle buffer, bool to_device);

    // --- device code
    /// What the opened device takes, the most direct form first; source last.
    virtual std::vector<CodeTarget> targets() = 0;
    /// Load device code of one form: bytes of an artefact, or source in the language of this backend.
    virtual Handle module(Form form, const std::string &code) = 0;
    virtual void unload(Handle module) = 0;
    /// The driver's own binary of a loaded module, which `module` takes as Form::kBinary on the same device and driver.
    virtual std::string binary(Handle module);
    virtual Handle kernel(Handle module, const char *name) = 0;
    /// Give each group of this kernel so much more shared memory than its code declares, from the next launch on.
    virtual void dynamic_shared(Handle kernel, std::size_t bytes);
    /// Run `items` work items in groups of `group`, wait, and return the device's own time for it.
    virtual double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) = 0;

    // --- work that is not waited for
    /// `priority` 0: as usual; 1: before others, where the device has priorities.
    virtual Handle queue(int priority = 0) = 0;
    virtual void free_queue(Handle queue) = 0;
    virtual void enqueue(Handle queue, Handle kernel, std::size_t items, std::size_t group,
                         const std::vector<Arg> &args) = 0;
    virtual void enqueue_copy(Handle queue, const Place &to, const Place &from, std::size_t bytes) = 0;
    /// Call `function(data)` on a thread of this process when the queue gets there.
    virtual void enqueue_call(Handle queue, void (*function)(void *), void *data);
    /// Wait until everything in the queue is done; errors of what was enqueued appear here.
    virtual void finish(Handle queue) = 0;
    virtual Handle event() = 0;
    virtual void free_event(Handle event) = 0;
    virtual void record(Handle event, Handle queue) = 0;
    /// What is enqueued after this waits for the event.
    virtual void wait(Handle queue, Handle event) = 0;
    /// The device's time between two recorded events whose queues have been finished.
    virtual double between(Handle first, Handle second) = 0;
    /// Everything that `enqueue_all` puts into the queue it is given becomes one graph.
    virtual Handle graph(const std::function<void(Handle queue)> &enqueue_all);
    virtual void enqueue_graph(Handle queue, Handle graph);
    virtual void free_graph(Handle graph);

    // --- between processes and devices
    /// A name (some bytes) under which another process on this host can open a buffer of device memory.
    virtual std::string export_memory(Handle buffer);
    virtual Handle import_memory(const std::string &name, std::size_t bytes);
    /// Whether the opened device reaches memory of the other device directly.
    virtual bool reaches(std::size_t other);
    /// Memory of the other device, which the opened one reads and writes directly.
    virtual Handle alloc_on(std::size_t other, std::size_t bytes);

    // --- beside the vendor's other libraries
    /// The device's address of a buffer, and the API's own stream of a queue. The opened device, or its context, is the
    /// calling thread's from then on, which those libraries go by.
    virtual std::uint64_t native_address(Handle buffer);
    virtual void *native_stream(Handle queue);
};

/// One entry of the list of backends, made by GT_BACKEND in the backend's file.
struct BackendEntry {
    const char *name;
    std::unique_ptr<Backend> (*make)();
};
std::vector<BackendEntry> &backends();
struct RegisterBackend {
    RegisterBackend(const char *name, std::unique_ptr<Backend> (*make)()) { backends().push_back({name, make}); }
};
#define GT_BACKEND(name, type)                                                                                  \
    static const ::gt::RegisterBackend gt_registered_backend(                                                   \
        name, []() -> std::unique_ptr<::gt::Backend> { return std::make_unique<type>(); })

}  // namespace gt
