// A fault-injecting OpenCL loader, for the tests of the tests: it wraps the real libOpenCL.so.1 and lies as told.
//
// GT_FAKE_FAULT names the fault (none when unset), GT_FAKE_REAL the library that is wrapped. The runner recognises it
// by the symbol gt_fake_library and reports every device as kind "fake". It never belongs in a guest image.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "../host/cl_abi.h"
#include "damage.h"

using namespace cl;
using gt_fake::corrupt;
using gt_fake::crash;
using gt_fake::fault;
using gt_fake::hang;
using gt_fake::is;

extern "C" {
extern const int gt_fake_library;
const int gt_fake_library = 1;
}

namespace {

void *real(const char *symbol) {
    static void *const library = [] {
        const char *name = std::getenv("GT_FAKE_REAL");
        void *handle = ::dlopen(name ? name : "libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
        if (!handle) {
            std::fprintf(stderr, "fake_opencl: %s\n", ::dlerror());
            std::abort();
        }
        return handle;
    }();
    return ::dlsym(library, symbol);
}

#define GT_REAL(name, result, parameters)                                                  \
    result(*real_##name) parameters = reinterpret_cast<result(*) parameters>(real(#name));

// Two looks at the devices are two counting calls: the runner enumerates by asking for the count, then for the list.
int looks = 0;
int launches = 0;
// The number of elements last set on each kernel: by convention it is argument 0 of every kernel.
std::map<Object, Uint> elements;

}  // namespace

#define FORWARD(name, result, parameters, arguments)    \
    extern "C" result name parameters {                 \
        static GT_REAL(name, result, parameters)        \
        return real_##name arguments;                   \
    }

FORWARD(clGetPlatformInfo, Int, (Object p, Uint w, std::size_t n, void *v, std::size_t *s), (p, w, n, v, s))
FORWARD(clCreateContext, Object, (const std::intptr_t *p, Uint n, const Object *d, void *f, void *u, Int *e),
        (p, n, d, f, u, e))
FORWARD(clCreateCommandQueue, Object, (Object c, Object d, Ulong p, Int *e), (c, d, p, e))
FORWARD(clGetProgramInfo, Int, (Object p, Uint w, std::size_t n, void *v, std::size_t *s), (p, w, n, v, s))
FORWARD(clGetProgramBuildInfo, Int, (Object p, Object d, Uint w, std::size_t n, void *v, std::size_t *s),
        (p, d, w, n, v, s))
FORWARD(clReleaseEvent, Int, (Object e), (e))
FORWARD(clWaitForEvents, Int, (Uint n, const Object *e), (n, e))
FORWARD(clReleaseCommandQueue, Int, (Object q), (q))
FORWARD(clReleaseProgram, Int, (Object p), (p))
FORWARD(clReleaseKernel, Int, (Object k), (k))
FORWARD(clFinish, Int, (Object q), (q))
FORWARD(clFlush, Int, (Object q), (q))
FORWARD(clSetUserEventStatus, Int, (Object e, Int s), (e, s))
FORWARD(clEnqueueMarkerWithWaitList, Int, (Object q, Uint n, const Object *l, Object *e), (q, n, l, e))
FORWARD(clEnqueueCopyBuffer, Int,
        (Object q, Object s, Object d, std::size_t so, std::size_t t, std::size_t b, Uint n, const Object *l,
         Object *e),
        (q, s, d, so, t, b, n, l, e))
FORWARD(clEnqueueMapBuffer, void *,
        (Object q, Object b, Uint w, Ulong f, std::size_t o, std::size_t z, Uint n, const Object *l, Object *e, Int *s),
        (q, b, w, f, o, z, n, l, e, s))
FORWARD(clEnqueueUnmapMemObject, Int, (Object q, Object b, void *p, Uint n, const Object *l, Object *e),
        (q, b, p, n, l, e))
FORWARD(clCreateProgramWithBinary, Object,
        (Object c, Uint n, const Object *d, const std::size_t *z, const unsigned char **b, Int *s, Int *e),
        (c, n, d, z, b, s, e))

extern "C" Object clCreateBuffer(Object context, Ulong flags, std::size_t size, void *host, Int *status) {
    static GT_REAL(clCreateBuffer, Object, (Object, Ulong, std::size_t, void *, Int *))
    static GT_REAL(clRetainMemObject, Int, (Object))
    static Object last = nullptr;
    static std::size_t last_size = 0;
    static int buffers = 0;
    const Object made = real_clCreateBuffer(context, flags, size, host, status);
    // A promise of memory that is not there.
    if (is("no_oom") && !made) return real_clCreateBuffer(context, flags, 4096, host, status);
    if (is("aliased") && made && ++buffers % 16 == 0 && last_size >= size && flags == kMemReadWrite) {
        real_clRetainMemObject(last);
        return last;
    }
    if (is("aliased") && made && flags == kMemReadWrite) {
        // Kept alive: the next buffer may be this one again.
        real_clRetainMemObject(made);
        last = made, last_size = size;
    }
    return made;
}

FORWARD(clSVMFree, void, (Object c, void *p), (c, p))
FORWARD(clEnqueueSVMMemcpy, Int,
        (Object q, Uint w, void *t, const void *f, std::size_t b, Uint n, const Object *l, Object *e),
        (q, w, t, f, b, n, l, e))
FORWARD(clEnqueueSVMMigrateMem, Int,
        (Object q, Uint c, const void **p, const std::size_t *s, Ulong f, Uint n, const Object *l, Object *e),
        (q, c, p, s, f, n, l, e))
FORWARD(clSetKernelArgSVMPointer, Int, (Object k, Uint i, const void *p), (k, i, p))

// The last shared allocation, of which one page may not move.
static unsigned char *shared = nullptr;
static std::size_t shared_bytes = 0;
constexpr std::size_t kPage = 4096;

extern "C" void *clSVMAlloc(Object context, Ulong flags, std::size_t bytes, Uint alignment) {
    static GT_REAL(clSVMAlloc, void *, (Object, Ulong, std::size_t, Uint))
    void *made = real_clSVMAlloc(context, flags, bytes, alignment);
    shared = static_cast<unsigned char *>(made), shared_bytes = bytes;
    return made;
}

// The kernel whose every launch is an error.
static Object wild = nullptr;

extern "C" Object clCreateKernel(Object program, const char *name, Int *status) {
    static GT_REAL(clCreateKernel, Object, (Object, const char *, Int *))
    const Object made = real_clCreateKernel(program, name, status);
    if (std::strcmp(name, "gt_beyond") == 0) wild = made;
    return made;
}

extern "C" Int clReleaseContext(Object context) {
    static GT_REAL(clReleaseContext, Int, (Object))
    if (is("leak_context")) {
        // A file and memory that no later call gives back.
        constexpr std::size_t kLost = 32u << 20;
        if (auto *lost = static_cast<unsigned char *>(std::malloc(kLost))) std::memset(lost, 0x5A, kLost);
        if (::dup(2) < 0) std::abort();
    }
    return real_clReleaseContext(context);
}

extern "C" Int clReleaseMemObject(Object buffer) {
    static GT_REAL(clReleaseMemObject, Int, (Object))
    return is("leak") ? kSuccess : real_clReleaseMemObject(buffer);
}

extern "C" Int clGetPlatformIDs(Uint n, Object *ids, Uint *count) {
    static GT_REAL(clGetPlatformIDs, Int, (Uint, Object *, Uint *))
    if (is("hang_at_init")) hang();
    if (is("crash_at_init")) crash();
    if (is("no_platform")) return kPlatformNotFoundKhr;
    return real_clGetPlatformIDs(n, ids, count);
}

extern "C" Int clGetDeviceIDs(Object platform, Ulong type, Uint n, Object *ids, Uint *count) {
    static GT_REAL(clGetDeviceIDs, Int, (Object, Ulong, Uint, Object *, Uint *))
    if (ids == nullptr) ++looks;
    if (is("no_device") || (is("vanishing_device") && looks > 1)) {
        if (count) *count = 0;
        return kDeviceNotFound;
    }
    return real_clGetDeviceIDs(platform, type, n, ids, count);
}

extern "C" Int clGetDeviceInfo(Object device, Uint what, std::size_t n, void *value, std::size_t *size) {
    static GT_REAL(clGetDeviceInfo, Int, (Object, Uint, std::size_t, void *, std::size_t *))
    const Int status = real_clGetDeviceInfo(device, what, n, value, size);
    if (std::getenv("GT_SYSFS")) {
        // For the comparison with a planted tree: a card of a vendor that has one kernel driver.
        static const Uint place[4] = {0, 0xf1, 0, 0};
        static const char vendor[] = "NVIDIA Corporation";
        if (what == kDevicePciBusInfoKhr && value && n >= sizeof place) {
            std::memcpy(value, place, sizeof place);
            return kSuccess;
        }
        if (what == kDeviceVendor) {
            if (size) *size = sizeof vendor;
            if (value) std::memcpy(value, vendor, std::min(n, sizeof vendor));
            return kSuccess;
        }
    }
    if (is("renamed_device") && looks > 1 && what == kDeviceName && value && n > 0) *static_cast<char *>(value) ^= 1;
    return status;
}

namespace {

/// What a wrong compiler makes of a kernel: a text of its source is read as another. A text that is not there leaves
/// the program as it is, and the fault survives.
struct Miscompiled {
    const char *fault, *text, *other;
};
constexpr Miscompiled kMiscompiled[] = {
    {"low_precision", "#define GT_FMA(a, b, c) fma((a), (b), (c))",
     "#define GT_FMA(a, b, c) as_float(as_uint(fma((float)(a), (float)(b), (float)(c))) & 0xFFFFE000u)"},
    {"low_precision", "#define GT_FMA64(a, b, c) fma((a), (b), (c))",
     "#define GT_FMA64(a, b, c) (double)(float)fma((double)(a), (double)(b), (double)(c))"},
    {"wrong_stride", "(col0 + row) * k_ + k0 + k", "(k0 + k) * n_ + col0 + row"},
    {"wrong_stride", "kv = head / sharing", "kv = head % kv_heads"},
};

}  // namespace

extern "C" Object clCreateProgramWithSource(Object context, Uint n, const char **texts, const std::size_t *lengths,
                                            Int *status) {
    static GT_REAL(clCreateProgramWithSource, Object, (Object, Uint, const char **, const std::size_t *, Int *))
    std::string source;
    for (Uint i = 0; i < n; ++i) source.append(texts[i], lengths[i]);
    for (const Miscompiled &wrong : kMiscompiled) {
        const std::size_t at = is(wrong.fault) ? source.find(wrong.text) : std::string::npos;
        if (at != std::string::npos) source.replace(at, std::strlen(wrong.text), wrong.other);
    }
    const char *text = source.data();
    const std::size_t length = source.size();
    return real_clCreateProgramWithSource(context, 1, &text, &length, status);
}

extern "C" Int clBuildProgram(Object program, Uint n, const Object *devices, const char *options, void *f, void *u) {
    static GT_REAL(clBuildProgram, Int, (Object, Uint, const Object *, const char *, void *, void *))
    if (is("build_error")) return kBuildProgramFailure;
    const Int status = real_clBuildProgram(program, n, devices, options, f, u);
    return is("accepts_damaged") ? kSuccess : status;
}

extern "C" Int clSetKernelArg(Object kernel, Uint index, std::size_t size, const void *value) {
    static GT_REAL(clSetKernelArg, Int, (Object, Uint, std::size_t, const void *))
    if (index == 0 && size == sizeof(Uint)) {
        Uint n = 0;
        std::memcpy(&n, value, sizeof n);
        elements[kernel] = n;
        if (is("last_item")) --n;
        if (is("overrun")) ++n;
        return real_clSetKernelArg(kernel, index, sizeof n, &n);
    }
    return real_clSetKernelArg(kernel, index, size, value);
}

extern "C" Int clEnqueueWriteBuffer(Object queue, Object buffer, Uint blocking, std::size_t offset, std::size_t size,
                                    const void *from, Uint waits, const Object *list, Object *event) {
    static GT_REAL(clEnqueueWriteBuffer, Int,
                   (Object, Object, Uint, std::size_t, std::size_t, const void *, Uint, const Object *, Object *))
    static int writes = 0;
    static GT_REAL(clEnqueueMarkerWithWaitList, Int, (Object, Uint, const Object *, Object *))
    if (is("lost_write") && ++writes % 4 == 0) {
        return event ? real_clEnqueueMarkerWithWaitList(queue, waits, list, event) : kSuccess;
    }
    return real_clEnqueueWriteBuffer(queue, buffer, blocking, offset, size, from, waits, list, event);
}

extern "C" Int clEnqueueReadBuffer(Object queue, Object buffer, Uint blocking, std::size_t offset, std::size_t size,
                                   void *into, Uint waits, const Object *list, Object *event) {
    static GT_REAL(clEnqueueReadBuffer, Int,
                   (Object, Object, Uint, std::size_t, std::size_t, void *, Uint, const Object *, Object *))
    static GT_REAL(clEnqueueMarkerWithWaitList, Int, (Object, Uint, const Object *, Object *))
    if (is("stale_read")) return event ? real_clEnqueueMarkerWithWaitList(queue, waits, list, event) : kSuccess;
    const Int status = real_clEnqueueReadBuffer(queue, buffer, blocking, offset, size, into, waits, list, event);
    corrupt(into, size);
    return status;
}

extern "C" Int clEnqueueNDRangeKernel(Object queue, Object kernel, Uint dims, const std::size_t *first,
                                      const std::size_t *global, const std::size_t *local, Uint waits,
                                      const Object *list, Object *event) {
    static GT_REAL(clEnqueueNDRangeKernel, Int,
                   (Object, Object, Uint, const std::size_t *, const std::size_t *, const std::size_t *, Uint,
                    const Object *, Object *))
    static GT_REAL(clEnqueueMarkerWithWaitList, Int, (Object, Uint, const Object *, Object *))
    ++launches;
    if (is("hang")) hang();
    if (is("crash")) crash();
    if (is("launch_error")) return kOutOfResources;
    if ((is("swallowed_error") && kernel == wild) || is("lost_launch") || (is("lost_some") && launches % 7 == 0)) {
        return real_clEnqueueMarkerWithWaitList(queue, waits, list, event);
    }
    std::size_t items = global[0];
    if (is("short") && items > local[0]) items -= local[0];
    // One item more than there are elements must exist for an overrun to happen.
    if (is("overrun") && elements[kernel] == items) items += local[0];
    if (is("managed_stale") && shared && shared_bytes >= 4 * kPage) {
        static GT_REAL(clFinish, Int, (Object))
        // What the device wrote to this page never comes back to the host.
        unsigned char page[kPage], *place = shared + shared_bytes / 2;
        std::memcpy(page, place, kPage);
        const Int status = real_clEnqueueNDRangeKernel(queue, kernel, dims, first, &items, local, waits, list, event);
        real_clFinish(queue);
        std::memcpy(place, page, kPage);
        return status;
    }
    return real_clEnqueueNDRangeKernel(queue, kernel, dims, first, &items, local, waits, list, event);
}

// The runner's calls into the host hold their queue by a user event; its other barriers are edges between queues.
static Object user_event = nullptr;

extern "C" Object clCreateUserEvent(Object context, Int *status) {
    static GT_REAL(clCreateUserEvent, Object, (Object, Int *))
    return user_event = real_clCreateUserEvent(context, status);
}

extern "C" Int clSetEventCallback(Object event, Int when, EventCallback function, void *data) {
    static GT_REAL(clSetEventCallback, Int, (Object, Int, EventCallback, void *))
    static GT_REAL(clSetUserEventStatus, Int, (Object, Int))
    static int calls = 0;
    if (is("lost_call") && ++calls % 5 == 0) return real_clSetUserEventStatus(user_event, kComplete);
    return real_clSetEventCallback(event, when, function, data);
}

extern "C" Int clEnqueueBarrierWithWaitList(Object queue, Uint waits, const Object *list, Object *event) {
    static GT_REAL(clEnqueueBarrierWithWaitList, Int, (Object, Uint, const Object *, Object *))
    static int edges = 0;
    const bool edge = waits == 1 && list[0] != user_event;
    if (is("lost_edge") && edge && ++edges % 5 == 0) return kSuccess;
    return real_clEnqueueBarrierWithWaitList(queue, waits, list, event);
}

extern "C" Int clGetEventProfilingInfo(Object event, Uint what, std::size_t n, void *value, std::size_t *size) {
    static GT_REAL(clGetEventProfilingInfo, Int, (Object, Uint, std::size_t, void *, std::size_t *))
    const Int status = real_clGetEventProfilingInfo(event, what, n, value, size);
    if (what != kProfilingEnd || fault().compare(0, 6, "timer_") != 0) return status;
    Ulong start = 0, end = 0;
    real_clGetEventProfilingInfo(event, kProfilingStart, sizeof start, &start, nullptr);
    std::memcpy(&end, value, sizeof end);
    if (is("timer_zero")) end = start;
    if (is("timer_1ns")) end = start + 1;
    if (is("timer_fast")) end = start + (end - start) / 3;
    if (is("timer_slow")) end = start + (end - start) * 5;
    std::memcpy(value, &end, sizeof end);
    return status;
}
