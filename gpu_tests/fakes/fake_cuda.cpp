// libcuda.so.1 and NVRTC over the simulated GPU, with the true ABI. GT_FAKE_FAULT names what is wrong with them. The
// runner recognises the library by the symbol gt_fake_library and reports its devices as kind "fake". It never belongs
// in a guest.
#include <cstdio>
#include <cstring>

#include "../host/cuda_abi.h"
#include "damage.h"
#include "images.h"
#include "sim.h"

using namespace gt_sim;
using cuda::Location;
using cuda::Uuid;
using gt_fake::is;

extern "C" {
extern const int gt_fake_library;
const int gt_fake_library = 1;
}

namespace {

constexpr int kDriver = 13000, kIsa = 90, kCapability = 90;  // CUDA 13.0 with a Hopper

bool initialised = false;

struct Function {
    const Kernel *kernel;
};

struct Program {
    std::string source, ptx, log;
};

/// The lines of NVIDIA's kernel module: https://docs.nvidia.com/deploy/xid-errors/.
std::string complaint(const std::string &bdf, int status) {
    const std::string gpu = "NVRM: Xid (PCI:" + bdf.substr(0, 10) + "): ";
    if (status == kIllegalAddress)
        return gpu + "31, pid=1, name=gtrun, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS";
    if (status == kAssert) return gpu + "43, pid=1, name=gtrun, Ch 00000008";
    if (status == kLaunchFailed) return gpu + "13, pid=1, name=gtrun, Graphics SM Warp Exception";
    return gpu + "79, pid=1, name=gtrun, GPU has fallen off the bus.";
}

int attribute(int which, int device) {
    using D = Description;
    switch (which) {
        case cuda::kMaxThreadsPerBlock: return D::kGroup;
        case cuda::kMaxSharedMemoryPerBlock: return D::kSharedBytes;
        case cuda::kMaxSharedMemoryPerBlockOptin: return D::kSharedBytes;
        case cuda::kWarpSize: return D::kLanes;
        case cuda::kClockRate: return D::kClockKilohertz;
        case cuda::kMultiprocessorCount: return D::kUnits;
        case cuda::kPciBusId: return D::kBus + device;
        case cuda::kMemoryClockRate: return D::kMemoryClockKilohertz;
        case cuda::kGlobalMemoryBusWidth: return D::kBusBits;
        case cuda::kL2CacheSize: return static_cast<int>(D::kL2);
        case cuda::kCapabilityMajor: return kCapability / 10;
        case cuda::kCapabilityMinor: return kCapability % 10;
        case cuda::kConcurrentManagedAccess: return !lacks("concurrent_managed");
        case cuda::kStreamPrioritiesSupported:
        case cuda::kManagedMemory:
        case cuda::kPageableMemoryAccess: return 1;
        default: return 0;
    }
}

/// Act, and say what broke the context, if something has: every later call returns that error.
template <class F>
int in_context(F act) {
    const Status own = act(), broken = condition();
    return broken ? broken : own;
}

}  // namespace

extern "C" {

int cuInit(unsigned flags) {
    if (flags != 0) return kInvalidValue;
    if (is("no_platform")) return kUnknown;
    initialised = true;
    return count_devices() == 0 ? kNoDevice : kSuccess;
}

int cuDriverGetVersion(int *version) { return *version = kDriver, kSuccess; }

int cuDeviceGetCount(int *count) {
    if (!initialised) return kNotInitialized;
    *count = devices();
    return kSuccess;
}

int cuDeviceGet(int *device, int ordinal) {
    if (!initialised) return kNotInitialized;
    if (ordinal < 0 || ordinal >= devices()) return kInvalidDevice;
    *device = ordinal;
    return kSuccess;
}

int cuDeviceGetName(char *name, int length, int device) {
    std::snprintf(name, static_cast<std::size_t>(length), "%cimulated GPU %d", renamed() ? 's' : 'S', device);
    return kSuccess;
}

int cuDeviceGetUuid_v2(Uuid *uuid, int device) {
    for (int i = 0; i < 16; ++i) uuid->bytes[i] = static_cast<unsigned char>(0xC0 + 16 * device + i);
    return kSuccess;
}
int cuDeviceGetUuid(Uuid *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

int cuDeviceTotalMem_v2(std::size_t *bytes, int) { return *bytes = memory_bytes(), kSuccess; }

int cuDeviceGetAttribute(int *value, int which, int device) { return *value = attribute(which, device), kSuccess; }

int cuDeviceGetPCIBusId(char *text, int length, int device) {
    std::snprintf(text, static_cast<std::size_t>(length), "%s", bdf(device).c_str());
    for (char *c = text; *c; ++c) *c = static_cast<char>(*c >= 'a' ? *c - 'a' + 'A' : *c);  // as the real one writes it
    return kSuccess;
}

int cuDeviceCanAccessPeer(int *can, int device, int peer) {
    if (device >= devices() || peer >= devices()) return kInvalidDevice;
    return *can = device != peer, kSuccess;
}

int cuCtxCreate_v2(void **context, unsigned, int device) {
    if (!initialised) return kNotInitialized;
    return make_context(device, complaint, reinterpret_cast<Context **>(context));
}
int cuCtxDestroy_v2(void *context) { return destroy(static_cast<Context *>(context)); }
int cuCtxSetCurrent(void *context) { return use(static_cast<Context *>(context)), kSuccess; }
int cuCtxEnablePeerAccess(void *context, unsigned) { return context ? kSuccess : kInvalidContext; }
int cuCtxGetLimit(std::size_t *value, int limit) {
    if (limit != cuda::kLimitPrintfBytes) return kInvalidValue;  // no backend asks for another
    return in_context([&] { return *value = Description::kPrintfBytes, kSuccess; });
}
int cuCtxSynchronize() { return synchronize(); }

int cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
    return in_context([&] { return memory_info(free, total); });
}
int cuMemAlloc_v2(Address *address, std::size_t bytes) { return allocate(bytes, Kind::kDevice, address); }
int cuMemFree_v2(Address address) { return in_context([&] { return release(address); }); }
int cuMemHostAlloc(void **address, std::size_t bytes, unsigned) {
    return allocate(bytes, Kind::kPinned, reinterpret_cast<Address *>(address));
}
int cuMemFreeHost(void *address) { return cuMemFree_v2(reinterpret_cast<Address>(address)); }
int cuMemAllocManaged(Address *address, std::size_t bytes, unsigned) {
    return allocate(bytes, Kind::kManaged, address);
}
int cuMemPrefetchAsync(Address address, std::size_t bytes, int device, void *stream) {
    return prefetch(static_cast<Stream *>(stream), address, bytes, device != cuda::kDeviceCpu);
}
int cuMemPrefetchAsync_v2(Address address, std::size_t bytes, Location to, unsigned, void *stream) {
    return prefetch(static_cast<Stream *>(stream), address, bytes, to.type == cuda::kLocationDevice);
}
int cuMemcpyAsync(Address to, Address from, std::size_t bytes, void *stream) {
    return copy(static_cast<Stream *>(stream), to, from, bytes);
}

int cuIpcGetMemHandle(unsigned char (*handle)[kIpcBytes], Address address) {
    return in_context([&] { return lacks("ipc") ? kNotSupported : share(address, *handle); });
}
struct IpcHandle {
    unsigned char name[kIpcBytes];
};
int cuIpcOpenMemHandle_v2(Address *address, IpcHandle handle, unsigned) {
    return in_context([&] { return open_shared(handle.name, address); });
}
int cuIpcCloseMemHandle(Address address) { return in_context([&] { return close_shared(address); }); }

int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    if (is("build_error")) {
        for (unsigned i = 0; i < count; ++i) {
            if (options[i] == cuda::kJitErrorLog) std::strcpy(static_cast<char *>(values[i]), "ptxas fatal: as told");
        }
        return kInvalidPtx;
    }
    if (const Status broken = condition()) return broken;
    auto *loaded = new Module;
    if (const Status status = load_cuda(image, kCapability, kIsa, loaded)) {
        delete loaded;
        return status;
    }
    return *module = loaded, kSuccess;
}
int cuModuleLoadData(void **module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
int cuModuleUnload(void *module) {
    return in_context([&] { return delete static_cast<Module *>(module), kSuccess; });
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    if (const Status broken = condition()) return broken;
    const auto found = kernels().find(name);
    if (!static_cast<Module *>(module)->has(name) || found == kernels().end()) return kNotFound;
    return *function = new Function{&found->second}, kSuccess;  // lives as long as the process: a few bytes each
}
int cuFuncSetAttribute(void *function, int, int value) {
    return in_context([&] { return function && value <= Description::kSharedBytes ? kSuccess : kInvalidValue; });
}
int cuLaunchKernel(void *function, unsigned groups, unsigned, unsigned, unsigned group, unsigned, unsigned, unsigned,
                   void *stream, void **arguments, void **) {
    if (!function) return kInvalidHandle;
    return launch(static_cast<Stream *>(stream), static_cast<Function *>(function)->kernel, groups, group, arguments);
}

int cuStreamCreateWithPriority(void **stream, unsigned, int) {
    return make_stream(reinterpret_cast<Stream **>(stream));
}
int cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    return in_context([&] { return *least = 0, *greatest = -5, kSuccess; });
}
int cuStreamDestroy_v2(void *stream) { return in_context([&] { return destroy(static_cast<Stream *>(stream)); }); }
int cuStreamSynchronize(void *stream) { return synchronize(static_cast<Stream *>(stream)); }
int cuStreamWaitEvent(void *stream, void *event, unsigned) {
    return wait(static_cast<Stream *>(stream), static_cast<Event *>(event));
}
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    return call(static_cast<Stream *>(stream), function, data);
}

int cuEventCreate(void **event, unsigned) { return make_event(reinterpret_cast<Event **>(event)); }
int cuEventDestroy_v2(void *event) { return in_context([&] { return destroy(static_cast<Event *>(event)); }); }
int cuEventRecord(void *event, void *stream) {
    return record(static_cast<Event *>(event), static_cast<Stream *>(stream));
}
int cuEventSynchronize(void *event) { return synchronize(static_cast<Event *>(event)); }
int cuEventQuery(void *event) { return query(static_cast<Event *>(event)); }
int cuEventElapsedTime(float *milliseconds, void *first, void *second) {
    return elapsed(static_cast<Event *>(first), static_cast<Event *>(second), milliseconds);
}

int cuStreamBeginCapture_v2(void *stream, int) { return begin_capture(static_cast<Stream *>(stream)); }
int cuStreamEndCapture(void *stream, void **graph) {
    return end_capture(static_cast<Stream *>(stream), reinterpret_cast<Graph **>(graph));
}
int cuGraphInstantiateWithFlags(void **run, void *graph, unsigned long long) {
    return copy_of(static_cast<Graph *>(graph), reinterpret_cast<Graph **>(run));
}
int cuGraphLaunch(void *run, void *stream) { return launch(static_cast<Graph *>(run), static_cast<Stream *>(stream)); }
int cuGraphExecDestroy(void *run) { return in_context([&] { return destroy(static_cast<Graph *>(run)); }); }
int cuGraphDestroy(void *graph) { return in_context([&] { return destroy(static_cast<Graph *>(graph)); }); }

int cuGetErrorName(int status, const char **name) {
    switch (status) {
        case kOutOfMemory: return *name = "CUDA_ERROR_OUT_OF_MEMORY", kSuccess;
        case kNoDevice: return *name = "CUDA_ERROR_NO_DEVICE", kSuccess;
        case kInvalidImage: return *name = "CUDA_ERROR_INVALID_IMAGE", kSuccess;
        case kNoBinaryForGpu: return *name = "CUDA_ERROR_NO_BINARY_FOR_GPU", kSuccess;
        case kInvalidPtx: return *name = "CUDA_ERROR_INVALID_PTX", kSuccess;
        case kUnsupportedPtxVersion: return *name = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", kSuccess;
        case kNotFound: return *name = "CUDA_ERROR_NOT_FOUND", kSuccess;
        case kIllegalAddress: return *name = "CUDA_ERROR_ILLEGAL_ADDRESS", kSuccess;
        case kAssert: return *name = "CUDA_ERROR_ASSERT", kSuccess;
        case kLaunchFailed: return *name = "CUDA_ERROR_LAUNCH_FAILED", kSuccess;
        case kUnknown: return *name = "CUDA_ERROR_UNKNOWN", kSuccess;
        default: return *name = nullptr, kInvalidValue;
    }
}

// NVRTC: what it makes of a source names its kernels; the code that runs is the CPU's.

int nvrtcCreateProgram(void **program, const char *source, const char *, int, const char *const *,
                       const char *const *) {
    return *program = new Program{source, "", ""}, kSuccess;
}
int nvrtcDestroyProgram(void **program) {
    return delete static_cast<Program *>(*program), *program = nullptr, kSuccess;
}
int nvrtcCompileProgram(void *handle, int, const char *const *) {
    auto *program = static_cast<Program *>(handle);
    if (!compiles(program->source, &program->log)) return 6;  // NVRTC_ERROR_COMPILATION
    program->ptx = ptx_of(kernels_in(program->source), kCapability, kIsa);
    return kSuccess;
}
int nvrtcGetPTXSize(void *program, std::size_t *bytes) {
    return *bytes = static_cast<Program *>(program)->ptx.size() + 1, kSuccess;
}
int nvrtcGetPTX(void *program, char *ptx) {
    return std::strcpy(ptx, static_cast<Program *>(program)->ptx.c_str()), kSuccess;
}
int nvrtcGetProgramLogSize(void *program, std::size_t *bytes) {
    return *bytes = static_cast<Program *>(program)->log.size() + 1, kSuccess;
}
int nvrtcGetProgramLog(void *program, char *log) {
    return std::strcpy(log, static_cast<Program *>(program)->log.c_str()), kSuccess;
}

}  // extern "C"
