// OpenCL, through the installable-client-driver loader libOpenCL.so.1.
#include "be_ocl.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>

#include "intel.h"

namespace gt {
namespace ocl {

Cause cause_of(Int status) {
    switch (status) {
        case kMemObjectAllocationFailure:
        case kOutOfHostMemory:
        case kInvalidBufferSize: return Cause::kOutOfMemory;
        case kBuildProgramFailure:
        case kInvalidBinary:
        case kInvalidProgramExecutable: return Cause::kBadImage;
        case kDeviceNotFound: return Cause::kNoDevice;
        case kDeviceNotAvailable:
        case kInvalidCommandQueue: return Cause::kDeviceLost;
        case kNvidiaIllegalAccess: return Cause::kIllegalAddress;
        case kOutOfResources: return Cause::kLaunch;
        default: return Cause::kOther;
    }
}

void must(Int status, const char *what) {
    if (status == kSuccess) return;
    const std::string error = std::to_string(status);
    throw ApiFailure(std::string(what) + " failed with OpenCL error " + error, cause_of(status), status);
}

void OpenCl::load(const std::string &library) {
    const char *name = library.empty() ? "libOpenCL.so.1" : library.c_str();
    void *handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = ::dlerror();
        throw Unavailable(std::string("no OpenCL loader: ") + (why ? why : name));
    }
#define GT_LOOKUP(function, result, parameters) \
api_.function = reinterpret_cast<result(*) parameters>(::dlsym(handle, #function));
#define GT_REQUIRE(function, result, parameters)     \
GT_LOOKUP(function, result, parameters)          \
if (!api_.function) throw ApiFailure(std::string(name) + " lacks the symbol " #function);
    GT_CL_FUNCTIONS(GT_REQUIRE)
    GT_CL_NEWER_FUNCTIONS(GT_LOOKUP)
#undef GT_REQUIRE
#undef GT_LOOKUP
    fake_ = ::dlsym(handle, "gt_fake_library") != nullptr;
}

std::vector<DeviceInfo> OpenCl::enumerate() {
    devices_.clear();
    std::vector<DeviceInfo> out;
    Uint platforms = 0;
    const Int status = api_.clGetPlatformIDs(0, nullptr, &platforms);
    // The loader's answer to "no driver is registered", an extension's code: simply no devices.
    if (status == kPlatformNotFoundKhr || (status == kSuccess && platforms == 0)) return out;
    must(status, "clGetPlatformIDs");
    std::vector<Object> ids(platforms);
    must(api_.clGetPlatformIDs(platforms, ids.data(), nullptr), "clGetPlatformIDs");
    for (Object platform : ids) {
        Uint count = 0;
        const Int found = api_.clGetDeviceIDs(platform, kDeviceTypeAll, 0, nullptr, &count);
        if (found == kDeviceNotFound || (found == kSuccess && count == 0)) continue;
        must(found, "clGetDeviceIDs");
        std::vector<Object> devices(count);
        must(api_.clGetDeviceIDs(platform, kDeviceTypeAll, count, devices.data(), nullptr), "clGetDeviceIDs");
        for (Object device : devices) {
            devices_.push_back(device);
            out.push_back(describe(platform, device));
        }
    }
    return out;
}

void OpenCl::open(std::size_t index) {
    release();
    device_ = devices_.at(index);
    Int status = kSuccess;
    context_ = api_.clCreateContext(nullptr, 1, &device_, nullptr, nullptr, &status);
    must(status, "clCreateContext");
    main_.queue = make_queue();
}

Properties OpenCl::properties() {
    Properties p;
    p.max_group = value<std::size_t>(device_, kDeviceMaxWorkGroupSize);
    p.shared_bytes = static_cast<std::size_t>(value<Ulong>(device_, kDeviceLocalMemSize));
    p.l2_bytes = value<Ulong>(device_, kDeviceGlobalMemCacheSize);
    p.clock_hz = value<Uint>(device_, kDeviceMaxClockFrequency) * 1e6;
    p.fp64 = value<Ulong>(device_, kDeviceDoubleFpConfig) != 0;
    const std::string extensions = ' ' + text(device_, kDeviceExtensions) + ' ';
    const auto has = [&](const std::string &name) { return extensions.find(' ' + name + ' ') != std::string::npos; };
    p.fp16 = has("cl_khr_fp16");
    if (has("cl_intel_device_attribute_query")) p.architecture = intel_target(value<Uint>(device_, kDeviceIdIntel));
    if (has("cl_intel_subgroup_matrix_multiply_accumulate")) p.matrix_subgroup = smallest_subgroup();
    p.int64_atomics = has("cl_khr_int64_base_atomics") && has("cl_khr_int64_extended_atomics");
    const Ulong shared = svm();
    // Coarse-grained memory would have to be mapped around every look at it: that is no managed memory.
    p.managed = (shared & kSvmFineGrainBuffer) != 0;
    p.concurrent_managed = p.managed && (shared & kSvmAtomics) != 0;
    p.system_memory = (shared & kSvmFineGrainSystem) != 0 && api_.clSetKernelArgSVMPointer;
    p.callbacks = true;
    p.printf_bytes = value<std::size_t>(device_, kDevicePrintfBufferSize);
    return p;
}

Uint OpenCl::smallest_subgroup() {
    std::size_t sizes[8] = {}, bytes = 0;
    if (api_.clGetDeviceInfo(device_, kDeviceSubGroupSizesIntel, sizeof sizes, sizes, &bytes) != kSuccess) return 0;
    std::size_t *const end = sizes + bytes / sizeof *sizes;
    return sizes == end ? 0 : static_cast<Uint>(*std::min_element(sizes, end));
}

void OpenCl::release() {
    if (!context_) return;
    for (Event *event : events_) {
        if (event->event) api_.clReleaseEvent(event->event);
        delete event;
    }
    for (Object event : user_events_) api_.clReleaseEvent(event);
    for (Buffer *buffer : buffers_) release(buffer);
    for (Object kernel : kernels_) api_.clReleaseKernel(kernel);
    for (Object program : programs_) api_.clReleaseProgram(program);
    for (Queue *queue : queues_) {
        api_.clReleaseCommandQueue(queue->queue);
        delete queue;
    }
    events_.clear(), user_events_.clear(), buffers_.clear(), kernels_.clear(), programs_.clear(), queues_.clear();
    api_.clReleaseCommandQueue(main_.queue);
    api_.clReleaseContext(context_);
    main_.queue = context_ = nullptr;
}

std::string OpenCl::text(Object device, Uint what) {
    std::size_t size = 0;
    if (api_.clGetDeviceInfo(device, what, 0, nullptr, &size) != kSuccess || size == 0 || size > 65536) return "";
    std::vector<char> buffer(size + 1, '\0');
    if (api_.clGetDeviceInfo(device, what, size, buffer.data(), nullptr) != kSuccess) return "";
    return buffer.data();
}

DeviceInfo OpenCl::describe(Object platform, Object device) {
    DeviceInfo info;
    info.name = text(device, kDeviceName);
    info.vendor = text(device, kDeviceVendor);
    info.driver = text(device, kDriverVersion);
    info.api_version = text(device, kDeviceVersion);
    char buffer[1024] = {};
    if (api_.clGetPlatformInfo(platform, kPlatformName, sizeof buffer - 1, buffer, nullptr) == kSuccess) {
        info.platform = buffer;
    }
    Ulong type = 0;
    must(api_.clGetDeviceInfo(device, kDeviceType, sizeof type, &type, nullptr), "CL_DEVICE_TYPE");
    info.kind = fake_ ? "fake" : (type & kDeviceTypeGpu) ? "gpu" : "cpu-runtime";
    Ulong bytes = 0;
    must(api_.clGetDeviceInfo(device, kDeviceGlobalMemSize, sizeof bytes, &bytes, nullptr), "global memory size");
    info.mem_bytes = bytes;
    Uint units = 0;
    must(api_.clGetDeviceInfo(device, kDeviceMaxComputeUnits, sizeof units, &units, nullptr), "compute units");
    info.compute_units = units;
    Uint pci[4] = {};  // domain, bus, device, function
    if (api_.clGetDeviceInfo(device, kDevicePciBusInfoKhr, sizeof pci, pci, nullptr) == kSuccess) {
        char bdf[40];
        std::snprintf(bdf, sizeof bdf, "%04x:%02x:%02x.%x", pci[0], pci[1], pci[2], pci[3]);
        info.bdf = bdf;
    }
    unsigned char uuid[16] = {};
    if (api_.clGetDeviceInfo(device, kDeviceUuidKhr, sizeof uuid, uuid, nullptr) == kSuccess) {
        char hex[3];
        for (unsigned char byte : uuid) {
            std::snprintf(hex, sizeof hex, "%02x", byte);
            info.uuid += hex;
        }
    }
    return info;
}

GT_BACKEND("opencl", OpenCl);

}  // namespace ocl
}  // namespace gt
