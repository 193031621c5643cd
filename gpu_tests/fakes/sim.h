// A simulated GPU for the tests of the tests: memory with bounds, streams that run by themselves, events, graphs,
// memory shared between processes. The fake drivers put the true ABIs in front of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sim_kernel.h"

namespace gt_sim {

/// CUDA's driver API and HIP give the same numbers to what both know.
enum Status : int {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kNotInitialized = 3,
    kNoDevice = 100,
    kInvalidDevice = 101,
    kInvalidImage = 200,
    kInvalidContext = 201,
    kNoBinaryForGpu = 209,
    kInvalidPtx = 218,
    kUnsupportedPtxVersion = 222,
    kInvalidSource = 300,
    kInvalidHandle = 400,
    kNotFound = 500,
    kNotReady = 600,
    kIllegalAddress = 700,
    kLaunchOutOfResources = 701,
    kPeerAccessAlreadyEnabled = 704,
    kAssert = 710,
    kLaunchFailed = 719,
    kNotSupported = 801,
    kUnknown = 999,
};

constexpr std::size_t kIpcBytes = 64;

/// What is the same for every fake driver's devices. The rates are those of a large GPU, which no CPU comes near; the
/// units are few, since tests give each of them work.
struct Description {
    static constexpr std::uint64_t kMemory = 1024ull << 20, kL2 = 8ull << 20, kOfContext = 16ull << 20;
    static constexpr int kClockKilohertz = 1980000, kMemoryClockKilohertz = 2619000, kBusBits = 5120, kUnits = 4;
    static constexpr int kGroup = 1024, kSharedBytes = 48 << 10, kLanes = 32;
    static constexpr std::size_t kPrintfBytes = 64 << 10;
    static constexpr int kDevices = 2, kBus = 0xf1;  // PCI addresses 0000:f1:00.0 and 0000:f2:00.0
};

struct Context;
struct Stream;
struct Event;
struct Graph;
using Address = std::uint64_t;

/// What a driver writes into the kernel's log when a launch ends with this status; empty: nothing.
using Complaint = std::string (*)(const std::string &bdf, int status);

/// What a runtime does beside that, which may not survive such a launch.
using Reaction = void (*)(int status);

/// Look at the devices, which may be others than before, and return how many there are.
int count_devices();
/// How many there were at the last look.
int devices();
/// Whether a device calls itself otherwise by now.
bool renamed();
std::string bdf(int device);
/// The memory of each device, Description::kMemory. GT_FAKE_MEMORY names another size in MiB.
std::uint64_t memory_bytes();
/// Whether GT_FAKE_LACKS names this ability, which the devices then do not have.
bool lacks(const char *what);

// --- contexts: every call below that takes none acts on the one of this thread
Status make_context(int device, Complaint complaint, Context **context, Reaction reaction = nullptr);
Status destroy(Context *context);
void use(Context *context);
Context *in_use();
int device_of(const Context *context);
/// The error that a launch left in the context of this thread: nothing works in it any more.
Status condition();

// --- memory
enum class Kind { kDevice, kPinned, kManaged };
Status allocate(std::size_t bytes, Kind kind, Address *address);
Status release(Address address);
Status memory_info(std::size_t *free, std::size_t *total);
Status memory_info(int device, std::size_t *free, std::size_t *total);  // needs no context
Status share(Address address, unsigned char (&name)[kIpcBytes]);
Status open_shared(const unsigned char (&name)[kIpcBytes], Address *address);
Status close_shared(Address address);
/// Managed memory that kernels may have written, as the fault "managed_stale" keeps it from the host.
std::function<void()> withheld_page();
/// Whether all of it lies in one allocation, or in none: then it is the process's own.
enum class Where { kOurs, kProcess, kBeyond };
Where where(Address address, std::size_t bytes, Kind *kind = nullptr);

// --- work; a null stream is the context's own
Status make_stream(Stream **stream);
Status destroy(Stream *stream);
Status enqueue(Stream *stream, std::function<void()> work);
Status copy(Stream *stream, Address to, Address from, std::size_t bytes);
/// Move managed memory to the device, or to the host.
Status prefetch(Stream *stream, Address address, std::size_t bytes, bool to_device);
Status launch(Stream *stream, const Kernel *kernel, std::uint32_t groups, std::uint32_t group_size, void **arguments);
Status call(Stream *stream, void (*function)(void *), void *data);
Status synchronize(Stream *stream);
Status synchronize();  // all streams of the context
Status make_event(Event **event);
Status destroy(Event *event);
Status record(Event *event, Stream *stream);
Status wait(Stream *stream, Event *event);
Status synchronize(Event *event);
Status query(Event *event);
Status elapsed(Event *first, Event *second, float *milliseconds);
/// Write out what kernels have printed; waiting for a stream or an event does it.
void write_printed();
Status begin_capture(Stream *stream);
Status end_capture(Stream *stream, Graph **graph);
Status launch(Graph *graph, Stream *stream);
Status copy_of(Graph *graph, Graph **copy);
Status destroy(Graph *graph);

}  // namespace gt_sim
