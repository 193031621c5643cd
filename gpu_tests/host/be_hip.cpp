// ROCm/HIP, through libamdhip64; source through hiprtc.
#include <dlfcn.h>

#include <cctype>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "hip_abi.h"
#include "native.h"
#include "rtc.h"

namespace gt {
namespace {

using namespace hip;

struct Api {
#define GT_MEMBER(symbol, result, parameters) result(*symbol) parameters = nullptr;
    GT_HIP_FUNCTIONS(GT_MEMBER)
    GT_HIP_NEWER_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

/// The version of the kernel module when it does not come with the kernel (amdgpu-dkms).
std::string module_release() {
    std::ifstream file("/sys/module/amdgpu/version");
    std::string version;
    file >> version;
    return version;
}

class Hip final : public NativeBackend {
  public:
    ~Hip() override { release(); }

    void load(const std::string &library) override {
        library_ = open_library(library, {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"}, "HIP runtime");
        look_up(library_, false);
#define GT_LOOKUP(symbol, result, parameters) \
    api_.symbol = reinterpret_cast<result(*) parameters>(::dlsym(library_, #symbol));
#define GT_REQUIRE(symbol, result, parameters) \
    GT_LOOKUP(symbol, result, parameters)      \
    if (!api_.symbol) throw ApiFailure("the runtime's library lacks the symbol " #symbol);
        GT_HIP_FUNCTIONS(GT_REQUIRE)
        GT_HIP_NEWER_FUNCTIONS(GT_LOOKUP)
#undef GT_REQUIRE
#undef GT_LOOKUP
    }

    std::vector<DeviceInfo> enumerate() override {
        const int status = api_.hipInit(0);
        // HIP 5.7 calls a machine without a GPU an invalid device.
        if (status == kNoDevice || status == kInvalidDevice) return {};
        must(status, "hipInit");
        int count = 0, version = 0;
        const int counted = api_.hipGetDeviceCount(&count);
        if (counted == kNoDevice) return {};
        must(counted, "hipGetDeviceCount");
        must(api_.hipDriverGetVersion(&version), "hipDriverGetVersion");
        std::vector<DeviceInfo> out;
        for (int i = 0; i < count; ++i) out.push_back(describe_device(i, version));
        return out;
    }

    void open(std::size_t index) override {
        release();
        device_ = static_cast<int>(index);
        open_ = true;
        current_ = -1;
        enter();
        begin();
    }

    void close() override { release(); }

    Properties properties() override {
        Properties p;
        p.architecture = architecture();
        p.max_group = static_cast<std::size_t>(attribute(kMaxThreadsPerBlock));
        p.shared_bytes = static_cast<std::size_t>(attribute(kMaxSharedMemoryPerBlock));
        p.subgroup = static_cast<std::uint32_t>(attribute(kWarpSize));
        p.l2_bytes = static_cast<std::uint64_t>(attribute(kL2CacheSize));
        p.clock_hz = attribute(kClockRate) * 1e3;
        p.memory_clock_hz = attribute(kMemoryClockRate) * 1e3;
        p.memory_bus_bits = static_cast<std::uint32_t>(attribute(kMemoryBusWidth));
        p.fp64 = p.fp16 = p.int64_atomics = true;
        p.managed = attribute(kManagedMemory) != 0 && calls_.managed_alloc;
        p.concurrent_managed = p.managed && attribute(kConcurrentManagedAccess) != 0;
        p.system_memory = attribute(kPageableMemoryAccess) != 0;
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
        if (!api_.hipMemPrefetchAsync || attribute(kConcurrentManagedAccess) == 0) return;
        must(api_.hipMemPrefetchAsync(reinterpret_cast<void *>(buffer->address), buffer->bytes,
                                      to_device ? device_ : kDeviceCpu, main_),
             "hipMemPrefetchAsync");
        finish(nullptr);
    }

    std::vector<CodeTarget> targets() override {
        return {{Form::kBinary, "binary", architecture(), "hsaco"}, {Form::kSource, "source", "", ""}};
    }

    Handle module(Form form, const std::string &code) override {
        enter();
        native::Object module = nullptr;
        const std::string image = form == Form::kSource
                                      ? compiled(find_hiprtc(library_), code, "--gpu-architecture=" + architecture())
                                      : code;
        must(api_.hipModuleLoadData(&module, image.c_str()), "hipModuleLoadData");
        modules_.insert(module);
        return module;
    }

    void dynamic_shared(Handle handle, std::size_t bytes) override {
        if (bytes > static_cast<std::size_t>(attribute(kMaxSharedMemoryPerBlock))) {
            throw Inapplicable("the device has less shared memory for a group");
        }
        static_cast<native::Kernel *>(handle)->shared = bytes;
    }

    Handle alloc_on(std::size_t other, std::size_t bytes) override {
        if (!reaches(other)) throw Inapplicable("the opened device does not reach the other one's memory");
        must(api_.hipSetDevice(static_cast<int>(other)), "hipSetDevice");
        current_ = static_cast<int>(other);
        native::Address address = 0;
        const int status = calls_.mem_alloc(&address, bytes);
        enter();
        must(status, "allocating memory of the other device");
        const int enabled = api_.hipDeviceEnablePeerAccess(static_cast<int>(other), 0);
        if (enabled != kPeerAccessAlreadyEnabled) must(enabled, "hipDeviceEnablePeerAccess");
        auto *buffer = new native::Buffer;
        buffer->address = address, buffer->bytes = bytes, buffer->device = static_cast<int>(other);
        return *buffers_.insert(buffer).first;
    }

  protected:
    void enter() override {
        if (current_ == device_) return;
        must(api_.hipSetDevice(device_), "hipSetDevice");
        current_ = device_;
    }

    int copy_async(native::Address to, native::Address from, std::size_t bytes, native::Object stream) override {
        return api_.hipMemcpyAsync(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes,
                                   kCopyByAddress, stream);
    }

    std::string describe(int status) override {
        const char *name = api_.hipGetErrorName(status);
        return name ? name : "an unknown HIP error";
    }

  private:
    int attribute(int which) {
        int value = 0;
        return api_.hipDeviceGetAttribute(&value, which, device_) == 0 ? value : 0;
    }

    /// gfx90a, gfx1100, …: the word of the properties that begins so, wherever this version has it, without the
    /// features that may follow it (gfx90a:sramecc+:xnack-).
    std::string architecture() {
        auto *ask = api_.hipGetDevicePropertiesR0600 ? api_.hipGetDevicePropertiesR0600 : api_.hipGetDeviceProperties;
        std::vector<char> properties(kPropertiesMost, '\0');
        if (!ask || ask(properties.data(), device_) != 0) return "";
        const std::string bytes(properties.begin(), properties.end());
        for (std::size_t at = bytes.find("gfx"); at != std::string::npos; at = bytes.find("gfx", at + 1)) {
            std::size_t end = at + 3;
            while (end < bytes.size() && std::isxdigit(static_cast<unsigned char>(bytes[end]))) ++end;
            if (end - at >= 6 && (bytes[end] == '\0' || bytes[end] == ':')) return bytes.substr(at, end - at);
        }
        return "";
    }

    DeviceInfo describe_device(int device, int version) {
        DeviceInfo info;
        char text[256] = {};
        must(api_.hipDeviceGetName(text, sizeof text - 1, device), "hipDeviceGetName");
        info.name = text;
        info.vendor = "AMD";
        info.api_version = "HIP " + std::to_string(version / 10000000) + "." + std::to_string(version / 100000 % 100);
        info.driver = module_release();
        if (info.driver.empty()) info.driver = info.api_version;
        info.platform = "ROCm";
        std::memset(text, 0, sizeof text);
        must(api_.hipDeviceGetPCIBusId(text, sizeof text - 1, device), "hipDeviceGetPCIBusId");
        for (const char *c = text; *c; ++c) info.bdf += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
        Uuid uuid{};
        if (api_.hipDeviceGetUuid && api_.hipDeviceGetUuid(&uuid, device) == 0) {
            char hex[3];
            for (unsigned char byte : uuid.bytes) {
                std::snprintf(hex, sizeof hex, "%02x", byte);
                info.uuid += hex;
            }
        }
        info.kind = fake_ ? "fake" : "gpu";
        std::size_t bytes = 0;
        must(api_.hipDeviceTotalMem(&bytes, device), "hipDeviceTotalMem");
        info.mem_bytes = bytes;
        int units = 0;
        must(api_.hipDeviceGetAttribute(&units, kMultiprocessorCount, device), "hipDeviceGetAttribute");
        info.compute_units = static_cast<std::uint32_t>(units);
        return info;
    }

    void release() {
        if (!open_) return;
        open_ = false;
        api_.hipSetDevice(device_);
        end();
        api_.hipDeviceReset();  // HIP has one context a device, which it makes by itself
        current_ = -1;
    }

    Api api_;
    void *library_ = nullptr;
    bool open_ = false;
    static thread_local int current_;  // the device of this thread; -1: not set by us
};

thread_local int Hip::current_ = -1;

GT_BACKEND("hip", Hip);

}  // namespace
}  // namespace gt
