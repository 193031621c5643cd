// OpenCL, through the installable-client-driver loader libOpenCL.so.1.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "cl_abi.h"
#include "gt_api.h"

namespace gt {
namespace {

using namespace cl;

struct Api {
#define GT_MEMBER(name, result, parameters) result(*name) parameters = nullptr;
    GT_CL_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

void must(Int status, const char *what) {
    if (status != kSuccess) throw ApiFailure(std::string(what) + " failed with OpenCL error " + std::to_string(status));
}

class OpenCl final : public Backend {
  public:
    void load(const std::string &library) override {
        const char *name = library.empty() ? "libOpenCL.so.1" : library.c_str();
        void *handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!handle) {
            const char *why = ::dlerror();
            throw Unavailable(std::string("no OpenCL loader: ") + (why ? why : name));
        }
#define GT_LOOKUP(function, result, parameters)                                         \
    api_.function = reinterpret_cast<result(*) parameters>(::dlsym(handle, #function)); \
    if (!api_.function) throw ApiFailure(std::string(name) + " lacks the symbol " #function);
        GT_CL_FUNCTIONS(GT_LOOKUP)
#undef GT_LOOKUP
        fake_ = ::dlsym(handle, "gt_fake_library") != nullptr;
    }

    std::vector<DeviceInfo> enumerate() override {
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

    void open(std::size_t index) override {
        device_ = devices_.at(index);
        Int status = kSuccess;
        context_ = api_.clCreateContext(nullptr, 1, &device_, nullptr, nullptr, &status);
        must(status, "clCreateContext");
        // Deprecated since OpenCL 2.0, but the one call that every loader and driver has.
        queue_ = api_.clCreateCommandQueue(context_, device_, kQueueProfiling, &status);
        must(status, "clCreateCommandQueue");
    }

    Handle alloc(std::size_t bytes) override {
        Int status = kSuccess;
        Object buffer = api_.clCreateBuffer(context_, kMemReadWrite, bytes, nullptr, &status);
        must(status, "clCreateBuffer");
        return buffer;
    }

    void free(Handle buffer) override { api_.clReleaseMemObject(buffer); }

    void write(Handle buffer, const void *from, std::size_t bytes) override {
        must(api_.clEnqueueWriteBuffer(queue_, buffer, 1, 0, bytes, from, 0, nullptr, nullptr), "clEnqueueWriteBuffer");
    }

    void read(Handle buffer, void *into, std::size_t bytes) override {
        must(api_.clEnqueueReadBuffer(queue_, buffer, 1, 0, bytes, into, 0, nullptr, nullptr), "clEnqueueReadBuffer");
    }

    Handle build(const std::string &source) override {
        Int status = kSuccess;
        const char *text = source.c_str();
        const std::size_t length = source.size();
        Object program = api_.clCreateProgramWithSource(context_, 1, &text, &length, &status);
        must(status, "clCreateProgramWithSource");
        status = api_.clBuildProgram(program, 1, &device_, "-cl-std=CL1.2", nullptr, nullptr);
        if (status != kSuccess) throw ApiFailure("clBuildProgram failed with " + std::to_string(status) + log(program));
        return program;
    }

    Handle kernel(Handle module, const char *name) override {
        Int status = kSuccess;
        Object kernel = api_.clCreateKernel(module, name, &status);
        must(status, "clCreateKernel");
        return kernel;
    }

    double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) override {
        for (Uint i = 0; i < args.size(); ++i) {
            const Arg &arg = args[i];
            const bool scalar = arg.size != 0;
            must(api_.clSetKernelArg(kernel, i, scalar ? arg.size : sizeof(Object),
                                     scalar ? static_cast<const void *>(arg.bytes) : &arg.buffer),
                 "clSetKernelArg");
        }
        const std::size_t global = (items + group - 1) / group * group;
        Object event = nullptr;
        must(api_.clEnqueueNDRangeKernel(queue_, kernel, 1, nullptr, &global, &group, 0, nullptr, &event),
             "clEnqueueNDRangeKernel");
        must(api_.clWaitForEvents(1, &event), "clWaitForEvents");
        Ulong start = 0, end = 0;
        must(api_.clGetEventProfilingInfo(event, kProfilingStart, sizeof start, &start, nullptr), "profiling start");
        must(api_.clGetEventProfilingInfo(event, kProfilingEnd, sizeof end, &end, nullptr), "profiling end");
        api_.clReleaseEvent(event);
        return (static_cast<double>(end) - static_cast<double>(start)) * 1e-9;
    }

  private:
    std::string text(Object device, Uint what) {
        char buffer[1024] = {};
        if (api_.clGetDeviceInfo(device, what, sizeof buffer - 1, buffer, nullptr) != kSuccess) return "";
        return buffer;
    }

    DeviceInfo describe(Object platform, Object device) {
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

    std::string log(Object program) {
        std::vector<char> buffer(16384, '\0');
        const Int status = api_.clGetProgramBuildInfo(program, device_, kProgramBuildLog, buffer.size() - 1,
                                                      buffer.data(), nullptr);
        return status == kSuccess ? std::string(": ") + buffer.data() : "";
    }

    Api api_;
    bool fake_ = false;
    std::vector<Object> devices_;
    Object device_ = nullptr, context_ = nullptr, queue_ = nullptr;
};

GT_BACKEND("opencl", OpenCl);

}  // namespace
}  // namespace gt
