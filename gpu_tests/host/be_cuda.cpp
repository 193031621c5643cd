// CUDA, through the driver's own library libcuda.so.1; source through NVRTC, where it is installed.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <fstream>

#include "cuda_abi.h"
#include "native.h"
#include "rtc.h"

namespace gt {
namespace {

using namespace cuda;

struct Api {
#define GT_MEMBER(symbol, parameters) int(*symbol) parameters = nullptr;
    GT_CUDA_FUNCTIONS(GT_MEMBER)
    GT_CUDA_NEWER_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

// Architectures of GPUs, newest first: a cubin runs on its own major version from its minor one on.
constexpr int kArchitectures[] = {121, 120, 110, 103, 101, 100, 90, 89, 87, 86, 80,
                                  75,  72,  70,  62,  61,  60,  53, 52, 50, 37, 35};
// Those that PTX is made for: the driver compiles it for everything newer.
constexpr int kVirtual[] = {120, 100, 90, 80, 75, 70, 60, 52, 50, 35};

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// The release of NVIDIA's kernel module, which libcuda does not tell: the word of digits and dots in /proc's first
/// line.
std::string module_release() {
    std::ifstream file("/proc/driver/nvidia/version");
    std::string word;
    while (file >> word) {
        if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos)
            return word;
    }
    return "";
}

class Cuda final : public NativeBackend {
  public:
    ~Cuda() override { release(); }

    void load(const std::string &library) override {
        library_ = open_library(library, {"libcuda.so.1"}, "CUDA driver");
        look_up(library_, true);
#define GT_LOOKUP(symbol, parameters) api_.symbol = reinterpret_cast<int(*) parameters>(::dlsym(library_, #symbol));
#define GT_REQUIRE(symbol, parameters) \
    GT_LOOKUP(symbol, parameters)      \
    if (!api_.symbol) throw ApiFailure("the driver's library lacks the symbol " #symbol);
        GT_CUDA_FUNCTIONS(GT_REQUIRE)
        GT_CUDA_NEWER_FUNCTIONS(GT_LOOKUP)
#undef GT_REQUIRE
#undef GT_LOOKUP
    }

    std::vector<DeviceInfo> enumerate() override {
        const int status = api_.cuInit(0);
        if (status == kNoDevice) return {};
        must(status, "cuInit");
        int count = 0, version = 0;
        must(api_.cuDeviceGetCount(&count), "cuDeviceGetCount");
        must(api_.cuDriverGetVersion(&version), "cuDriverGetVersion");
        std::vector<DeviceInfo> out;
        for (int i = 0; i < count; ++i) out.push_back(describe_device(i, version));
        return out;
    }

    void open(std::size_t index) override {
        release();
        device_ = static_cast<int>(index);
        must(api_.cuCtxCreate_v2(&context_, 0, device_), "cuCtxCreate");
        current_ = context_;
        begin();
    }

    void close() override { release(); }

    Properties properties() override {
        Properties p;
        const int major = attribute(kCapabilityMajor), minor = attribute(kCapabilityMinor);
        p.architecture = "sm_" + std::to_string(major * 10 + minor);
        p.max_group = static_cast<std::size_t>(attribute(kMaxThreadsPerBlock));
        p.shared_bytes = static_cast<std::size_t>(attribute(kMaxSharedMemoryPerBlock));
        p.subgroup = static_cast<std::uint32_t>(attribute(kWarpSize));
        p.l2_bytes = static_cast<std::uint64_t>(attribute(kL2CacheSize));
        p.clock_hz = attribute(kClockRate) * 1e3;
        p.memory_clock_hz = attribute(kMemoryClockRate) * 1e3;
        p.memory_bus_bits = static_cast<std::uint32_t>(attribute(kGlobalMemoryBusWidth));
        p.fp64 = true;
        p.fp16 = major * 10 + minor >= 53;
        p.int64_atomics = true;
        p.managed = attribute(kManagedMemory) != 0 && calls_.managed_alloc;
        p.concurrent_managed = p.managed && attribute(kConcurrentManagedAccess) != 0;
        p.system_memory = attribute(kPageableMemoryAccess) != 0;
        std::size_t printed = 0;
        if (api_.cuCtxGetLimit(&printed, kLimitPrintfBytes) == 0) p.printf_bytes = printed;
        p.graphs = calls_.begin_capture && calls_.graph_instantiate;
        p.callbacks = calls_.host_call != nullptr;
        p.priorities = attribute(kStreamPrioritiesSupported) != 0;
        p.ipc = true;
        p.memory_info = true;
        return p;
    }

    void prefetch(Handle handle, bool to_device) override {
        enter();
        const auto *buffer = static_cast<native::Buffer *>(handle);
        if (attribute(kConcurrentManagedAccess) == 0) return;  // the driver moves whole allocations by itself
        if (api_.cuMemPrefetchAsync) {
            must(api_.cuMemPrefetchAsync(buffer->address, buffer->bytes, to_device ? device_ : kDeviceCpu, main_),
                 "cuMemPrefetchAsync");
        } else if (api_.cuMemPrefetchAsync_v2) {
            const Location to = to_device ? Location{kLocationDevice, device_} : Location{kLocationHost, 0};
            must(api_.cuMemPrefetchAsync_v2(buffer->address, buffer->bytes, to, 0, main_), "cuMemPrefetchAsync");
        }
        finish(nullptr);
    }

    std::vector<CodeTarget> targets() override {
        std::vector<CodeTarget> out;
        const int major = attribute(kCapabilityMajor), own = major * 10 + attribute(kCapabilityMinor);
        for (int arch : kArchitectures) {
            if (arch > own || arch / 10 != major) continue;
            out.push_back({Form::kBinary, "binary", "sm_" + std::to_string(arch), "cubin"});
        }
        for (int arch : kVirtual) {
            if (arch <= own) out.push_back({Form::kIntermediate, "ptx", "compute_" + std::to_string(arch), "ptx"});
        }
        out.push_back({Form::kSource, "source", "", ""});
        return out;
    }

    Handle module(Form form, const std::string &code) override {
        enter();
        // The compiler must not be newer than the driver: it is asked for PTX, and an old one is found first by its
        // name.
        if (form == Form::kSource) return load_module(compile(code));
        return load_module(code);
    }

    void dynamic_shared(Handle handle, std::size_t bytes) override {
        enter();
        auto *kernel = static_cast<native::Kernel *>(handle);
        must(api_.cuFuncSetAttribute(kernel->function, kFunctionMaxDynamicShared, static_cast<int>(bytes)),
             "cuFuncSetAttribute");
        kernel->shared = bytes;
    }

    Handle alloc_on(std::size_t other, std::size_t bytes) override {
        if (!reaches(other)) throw Inapplicable("the opened device does not reach the other one's memory");
        if (!peer_) {
            must(api_.cuCtxCreate_v2(&peer_, 0, static_cast<int>(other)), "cuCtxCreate on the other device");
            peer_index_ = other;
        } else if (peer_index_ != other) {
            throw OwnError("one other device at a time");
        }
        must(api_.cuCtxSetCurrent(peer_), "cuCtxSetCurrent");
        current_ = peer_;
        native::Address address = 0;
        const int status = calls_.mem_alloc(&address, bytes);
        enter();
        must(status, "allocating memory of the other device");
        const int enabled = api_.cuCtxEnablePeerAccess(peer_, 0);
        if (enabled != kPeerAccessAlreadyEnabled) must(enabled, "cuCtxEnablePeerAccess");
        auto *buffer = new native::Buffer;
        buffer->address = address, buffer->bytes = bytes, buffer->device = static_cast<int>(other);
        return *buffers_.insert(buffer).first;
    }

  protected:
    void enter() override {
        if (current_ == context_ || !context_) return;
        must(api_.cuCtxSetCurrent(context_), "cuCtxSetCurrent");
        current_ = context_;
    }

    int copy_async(native::Address to, native::Address from, std::size_t bytes, native::Object stream) override {
        return api_.cuMemcpyAsync(to, from, bytes, stream);
    }

    std::string describe(int status) override {
        const char *name = nullptr;
        return api_.cuGetErrorName(status, &name) == 0 && name ? name : "an unknown CUDA error";
    }

  private:
    int attribute(int which) {
        int value = 0;
        return api_.cuDeviceGetAttribute(&value, which, device_) == 0 ? value : 0;
    }

    DeviceInfo describe_device(int index, int version) {
        int device = 0;
        must(api_.cuDeviceGet(&device, index), "cuDeviceGet");
        DeviceInfo info;
        char text[256] = {};
        must(api_.cuDeviceGetName(text, sizeof text - 1, device), "cuDeviceGetName");
        info.name = text;
        info.vendor = "NVIDIA";
        info.driver = module_release();
        info.api_version = "CUDA " + version_text(version);
        info.platform = "CUDA";
        if (info.driver.empty()) info.driver = info.api_version;
        std::memset(text, 0, sizeof text);
        must(api_.cuDeviceGetPCIBusId(text, sizeof text - 1, device), "cuDeviceGetPCIBusId");
        for (char *c = text; *c; ++c) info.bdf += static_cast<char>(*c >= 'A' && *c <= 'F' ? *c - 'A' + 'a' : *c);
        Uuid uuid{};
        auto *ask = api_.cuDeviceGetUuid_v2 ? api_.cuDeviceGetUuid_v2 : api_.cuDeviceGetUuid;
        if (ask && ask(&uuid, device) == 0) {
            char hex[3];
            for (unsigned char byte : uuid.bytes) {
                std::snprintf(hex, sizeof hex, "%02x", byte);
                info.uuid += hex;
            }
        }
        info.kind = fake_ ? "fake" : "gpu";
        std::size_t bytes = 0;
        must(api_.cuDeviceTotalMem_v2(&bytes, device), "cuDeviceTotalMem");
        info.mem_bytes = bytes;
        int units = 0;
        must(api_.cuDeviceGetAttribute(&units, kMultiprocessorCount, device), "cuDeviceGetAttribute");
        info.compute_units = static_cast<std::uint32_t>(units);
        return info;
    }

    std::string compile(const std::string &source) {
        const int own = attribute(kCapabilityMajor) * 10 + attribute(kCapabilityMinor);
        return compiled(find_nvrtc(library_), source, "--gpu-architecture=compute_" + std::to_string(own));
    }

    Handle load_module(const std::string &code) {
        char log[4096] = {};
        int options[] = {kJitErrorLog, kJitErrorLogBytes};
        void *values[] = {log, reinterpret_cast<void *>(sizeof log - 1)};
        native::Object module = nullptr;
        const int status = api_.cuModuleLoadDataEx(&module, code.c_str(), 2, options, values);
        if (status != 0) {
            throw ApiFailure("cuModuleLoadDataEx failed with " + describe(status) + " (" + std::to_string(status) +
                                 ")" + (log[0] ? std::string(": ") + log : ""),
                             native_cause(status), status);
        }
        modules_.insert(module);
        return module;
    }

    void release() {
        if (!context_) return;
        api_.cuCtxSetCurrent(context_);
        end();
        if (peer_) api_.cuCtxDestroy_v2(peer_);
        api_.cuCtxDestroy_v2(context_);
        context_ = current_ = peer_ = nullptr;
    }

    Api api_;
    void *library_ = nullptr;
    void *context_ = nullptr, *peer_ = nullptr;
    std::size_t peer_index_ = 0;
    static thread_local void *current_;
};

thread_local void *Cuda::current_ = nullptr;

GT_BACKEND("cuda", Cuda);

}  // namespace
}  // namespace gt
