// libamdhip64 and hiprtc over the simulated GPU, with the true ABI. GT_FAKE_FAULT names what is wrong with them. The
// runner recognises the library by the symbol gt_fake_library and reports its devices as kind "fake". It never belongs
// in a guest.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "../host/hip_abi.h"
#include "damage.h"
#include "images.h"
#include "sim.h"

using namespace gt_sim;
using gt_fake::is;
using hip::Uuid;

extern "C" {
extern const int gt_fake_library;
const int gt_fake_library = 1;
}

namespace {

constexpr unsigned kMachine = 0x41;  // EF_AMDGPU_MACH_AMDGCN_GFX1100
constexpr const char *kArchitecture = "gfx1100";

struct Program {
    std::string source, code, log;
};

/// The lines of the amdgpu module.
std::string complaint(const std::string &bdf, int status) {
    const std::string gpu = "amdgpu " + bdf + ": amdgpu: ";
    if (status == kIllegalAddress) return gpu + "[gfxhub] page fault (src_id:0 ring:24 vmid:8 pasid:32770)";
    if (status == kUnknown) return gpu + "ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=2";
    return "";
}

/// The runtime aborts when a queue reports an exception of a kernel (callbackQueue in CLR's rocdevice.cpp, ROCm 6).
void die(int) {
    std::fputs("a kernel's exception: aborting\n", stderr);
    std::abort();
}

__thread int device_of_thread;

/// The context of this thread's device, made when it is first needed.
Context *&primary(int device) {
    static Context *contexts[Description::kDevices] = {};
    return contexts[device];
}

Status enter() {
    static std::mutex lock;
    const std::lock_guard<std::mutex> hold(lock);
    Context *&context = primary(device_of_thread);
    if (!context) return make_context(device_of_thread, complaint, &context, die);
    use(context);
    return kSuccess;
}

int attribute(int which) {
    using D = Description;
    switch (which) {
        case hip::kClockRate: return D::kClockKilohertz;
        case hip::kL2CacheSize: return static_cast<int>(D::kL2);
        case hip::kMaxThreadsPerBlock: return D::kGroup;
        case hip::kMemoryBusWidth: return D::kBusBits;
        case hip::kMemoryClockRate: return D::kMemoryClockKilohertz;
        case hip::kMultiprocessorCount: return D::kUnits;
        case hip::kMaxSharedMemoryPerBlock: return D::kSharedBytes;
        case hip::kWarpSize: return D::kLanes;
        case hip::kConcurrentManagedAccess: return !lacks("concurrent_managed");
        case hip::kManagedMemory:
        case hip::kPageableMemoryAccess:
        case hip::kStreamPrioritiesSupported: return 1;
        default: return 0;
    }
}

Address address_of(const void *pointer) { return reinterpret_cast<Address>(pointer); }

/// Make the thread's context the one in use, then do it.
template <class F>
int entered(F act) {
    if (const Status status = enter()) return status;
    return act();
}

}  // namespace

extern "C" {

int hipInit(unsigned) {
    if (is("no_platform")) return kUnknown;
    return count_devices() == 0 ? kInvalidDevice : kSuccess;  // as HIP 5.7 has it; later ones succeed here
}
int hipGetDeviceCount(int *count) { return *count = devices(), *count == 0 ? kNoDevice : kSuccess; }
int hipDriverGetVersion(int *version) { return *version = 60342134, kSuccess; }  // HIP 6.3
int hipSetDevice(int device) {
    if (device < 0 || device >= devices()) return kInvalidDevice;
    return device_of_thread = device, enter();
}
int hipDeviceReset() {
    Context *&context = primary(device_of_thread);
    if (context) destroy(context);
    return context = nullptr, kSuccess;
}
int hipDeviceSynchronize() { return entered([] { return synchronize(); }); }

int hipDeviceGetName(char *name, int length, int device) {
    std::snprintf(name, static_cast<std::size_t>(length), "%cimulated GPU %d", renamed() ? 's' : 'S', device);
    return kSuccess;
}
int hipDeviceGetUuid(Uuid *uuid, int device) {
    for (int i = 0; i < 16; ++i) uuid->bytes[i] = static_cast<unsigned char>(0xA0 + 16 * device + i);
    return kSuccess;
}
int hipDeviceTotalMem(std::size_t *bytes, int) { return *bytes = memory_bytes(), kSuccess; }
int hipDeviceGetAttribute(int *value, int which, int) { return *value = attribute(which), kSuccess; }
int hipDeviceGetPCIBusId(char *text, int length, int device) {
    return std::snprintf(text, static_cast<std::size_t>(length), "%s", bdf(device).c_str()), kSuccess;
}
/// The layout of ROCm 5: the name first, the architecture's behind the fields before it.
int hipGetDeviceProperties(void *properties, int device) {
    constexpr std::size_t kBytes = 792, kArchitectureAt = 396, kNameBytes = 256;
    std::memset(properties, 0, kBytes);
    hipDeviceGetName(static_cast<char *>(properties), kNameBytes, device);
    std::strcpy(static_cast<char *>(properties) + kArchitectureAt, kArchitecture);
    return kSuccess;
}
int hipDeviceCanAccessPeer(int *can, int device, int peer) {
    if (device >= devices() || peer >= devices()) return kInvalidDevice;
    return *can = device != peer, kSuccess;
}
int hipDeviceEnablePeerAccess(int peer, unsigned) { return peer < devices() ? kSuccess : kInvalidDevice; }

int hipMemGetInfo(std::size_t *free, std::size_t *total) {
    return entered([&] { return memory_info(free, total); });
}
int hipMalloc(void **address, std::size_t bytes) {
    return entered([&] { return allocate(bytes, Kind::kDevice, reinterpret_cast<Address *>(address)); });
}
int hipFree(void *address) { return release(address_of(address)); }
int hipHostMalloc(void **address, std::size_t bytes, unsigned) {
    return entered([&] { return allocate(bytes, Kind::kPinned, reinterpret_cast<Address *>(address)); });
}
int hipHostFree(void *address) { return release(address_of(address)); }
int hipMallocManaged(void **address, std::size_t bytes, unsigned) {
    return entered([&] { return allocate(bytes, Kind::kManaged, reinterpret_cast<Address *>(address)); });
}
int hipMemPrefetchAsync(const void *address, std::size_t bytes, int device, void *stream) {
    return entered([&] {
        return prefetch(static_cast<Stream *>(stream), address_of(address), bytes, device != hip::kDeviceCpu);
    });
}
int hipMemcpyAsync(void *to, const void *from, std::size_t bytes, int, void *stream) {
    return entered([&] { return copy(static_cast<Stream *>(stream), address_of(to), address_of(from), bytes); });
}
int hipIpcGetMemHandle(unsigned char (*handle)[kIpcBytes], void *address) {
    return lacks("ipc") ? kNotSupported : share(address_of(address), *handle);
}
struct IpcHandle {
    unsigned char name[kIpcBytes];
};
int hipIpcOpenMemHandle(void **address, IpcHandle handle, unsigned) {
    return entered([&] { return open_shared(handle.name, reinterpret_cast<Address *>(address)); });
}
int hipIpcCloseMemHandle(void *address) { return close_shared(address_of(address)); }

int hipModuleLoadData(void **module, const void *image) {
    if (const Status status = enter()) return status;
    if (is("build_error")) return kNoBinaryForGpu;
    if (const Status broken = condition()) return broken;
    auto *loaded = new Module;
    if (const Status status = load_amd(image, kMachine, loaded)) {
        delete loaded;
        return status;
    }
    return *module = loaded, kSuccess;
}
int hipModuleUnload(void *module) { return delete static_cast<Module *>(module), kSuccess; }
int hipModuleGetFunction(void **function, void *module, const char *name) {
    const auto found = kernels().find(name);
    if (!static_cast<Module *>(module)->has(name) || found == kernels().end()) return kNotFound;
    return *function = &found->second, kSuccess;
}
int hipModuleLaunchKernel(void *function, unsigned groups, unsigned, unsigned, unsigned group, unsigned, unsigned,
                          unsigned, void *stream, void **arguments, void **) {
    return entered([&] {
        return launch(static_cast<Stream *>(stream), static_cast<const Kernel *>(function), groups, group, arguments);
    });
}

int hipStreamCreateWithPriority(void **stream, unsigned, int) {
    return entered([&] { return make_stream(reinterpret_cast<Stream **>(stream)); });
}
int hipDeviceGetStreamPriorityRange(int *least, int *greatest) { return *least = 1, *greatest = -1, kSuccess; }
int hipStreamDestroy(void *stream) { return destroy(static_cast<Stream *>(stream)); }
int hipStreamSynchronize(void *stream) {
    return entered([&] { return synchronize(static_cast<Stream *>(stream)); });
}
int hipStreamWaitEvent(void *stream, void *event, unsigned) {
    return entered([&] { return wait(static_cast<Stream *>(stream), static_cast<Event *>(event)); });
}
int hipLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    return entered([&] { return call(static_cast<Stream *>(stream), function, data); });
}
int hipEventCreateWithFlags(void **event, unsigned) {
    return entered([&] { return make_event(reinterpret_cast<Event **>(event)); });
}
int hipEventDestroy(void *event) { return destroy(static_cast<Event *>(event)); }
int hipEventRecord(void *event, void *stream) {
    return entered([&] { return record(static_cast<Event *>(event), static_cast<Stream *>(stream)); });
}
int hipEventElapsedTime(float *milliseconds, void *first, void *second) {
    return entered([&] { return elapsed(static_cast<Event *>(first), static_cast<Event *>(second), milliseconds); });
}
int hipStreamBeginCapture(void *stream, int) {
    return entered([&] { return begin_capture(static_cast<Stream *>(stream)); });
}
int hipStreamEndCapture(void *stream, void **graph) {
    return entered([&] { return end_capture(static_cast<Stream *>(stream), reinterpret_cast<Graph **>(graph)); });
}
int hipGraphInstantiateWithFlags(void **run, void *graph, unsigned long long) {
    return entered([&] { return copy_of(static_cast<Graph *>(graph), reinterpret_cast<Graph **>(run)); });
}
int hipGraphLaunch(void *run, void *stream) {
    return entered([&] { return launch(static_cast<Graph *>(run), static_cast<Stream *>(stream)); });
}
int hipGraphExecDestroy(void *run) { return destroy(static_cast<Graph *>(run)); }
int hipGraphDestroy(void *graph) { return destroy(static_cast<Graph *>(graph)); }

const char *hipGetErrorName(int status) {
    switch (status) {
        case kOutOfMemory: return "hipErrorOutOfMemory";
        case kNoDevice: return "hipErrorNoDevice";
        case kInvalidImage: return "hipErrorInvalidImage";
        case kNoBinaryForGpu: return "hipErrorNoBinaryForGpu";
        case kIllegalAddress: return "hipErrorIllegalAddress";
        case kAssert: return "hipErrorAssert";
        case kLaunchFailed: return "hipErrorLaunchFailure";
        default: return "hipErrorUnknown";
    }
}

// hiprtc: what it makes of a source names its kernels; the code that runs is the CPU's.

int hiprtcCreateProgram(void **program, const char *source, const char *, int, const char *const *,
                        const char *const *) {
    return *program = new Program{source, "", ""}, kSuccess;
}
int hiprtcDestroyProgram(void **program) {
    return delete static_cast<Program *>(*program), *program = nullptr, kSuccess;
}
int hiprtcCompileProgram(void *handle, int, const char *const *) {
    auto *program = static_cast<Program *>(handle);
    if (!compiles(program->source, &program->log)) return 6;  // HIPRTC_ERROR_COMPILATION
    program->code = amd_object_of(kernels_in(program->source), kMachine);
    return kSuccess;
}
int hiprtcGetCodeSize(void *program, std::size_t *bytes) {
    return *bytes = static_cast<Program *>(program)->code.size(), kSuccess;
}
int hiprtcGetCode(void *handle, char *code) {
    const auto *program = static_cast<Program *>(handle);
    return std::memcpy(code, program->code.data(), program->code.size()), kSuccess;
}
int hiprtcGetProgramLogSize(void *program, std::size_t *bytes) {
    return *bytes = static_cast<Program *>(program)->log.size() + 1, kSuccess;
}
int hiprtcGetProgramLog(void *program, char *log) {
    return std::strcpy(log, static_cast<Program *>(program)->log.c_str()), kSuccess;
}

}  // extern "C"
