// What CUDA's driver API and HIP have in common: the same calls under other names, with the same signatures and
// numbers.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "gt_api.h"

namespace gt {
namespace native {

using Address = std::uint64_t;  // CUdeviceptr; hipDeviceptr_t is a pointer, which is passed in the same way
using Object = void *;          // context, module, function, stream, event, graph

/// CUipcMemHandle, hipIpcMemHandle_t: passed by value.
struct IpcHandle {
    char reserved[64];
};

/// (member, parameters, name in CUDA, name in HIP). All return the status.
#define GT_NATIVE_FUNCTIONS(X)                                                                                        \
    X(mem_info, (std::size_t * free, std::size_t *total), "cuMemGetInfo_v2", "hipMemGetInfo")                         \
    X(mem_alloc, (Address * address, std::size_t bytes), "cuMemAlloc_v2", "hipMalloc")                                \
    X(mem_free, (Address address), "cuMemFree_v2", "hipFree")                                                         \
    X(host_alloc, (void **address, std::size_t bytes, unsigned flags), "cuMemHostAlloc", "hipHostMalloc")             \
    X(host_free, (void *address), "cuMemFreeHost", "hipHostFree")                                                     \
    X(module_unload, (Object module), "cuModuleUnload", "hipModuleUnload")                                            \
    X(module_function, (Object * function, Object module, const char *name), "cuModuleGetFunction",                   \
      "hipModuleGetFunction")                                                                                         \
    X(launch_kernel,                                                                                                  \
      (Object function, unsigned groups, unsigned, unsigned, unsigned group, unsigned, unsigned, unsigned shared,     \
       Object stream, void **arguments, void **extra),                                                                \
      "cuLaunchKernel", "hipModuleLaunchKernel")                                                                      \
    X(stream_create, (Object * stream, unsigned flags, int priority), "cuStreamCreateWithPriority",                   \
      "hipStreamCreateWithPriority")                                                                                  \
    X(priority_range, (int *least, int *greatest), "cuCtxGetStreamPriorityRange", "hipDeviceGetStreamPriorityRange")  \
    X(stream_destroy, (Object stream), "cuStreamDestroy_v2", "hipStreamDestroy")                                      \
    X(stream_synchronize, (Object stream), "cuStreamSynchronize", "hipStreamSynchronize")                             \
    X(stream_wait, (Object stream, Object event, unsigned flags), "cuStreamWaitEvent", "hipStreamWaitEvent")          \
    X(event_create, (Object * event, unsigned flags), "cuEventCreate", "hipEventCreateWithFlags")                     \
    X(event_destroy, (Object event), "cuEventDestroy_v2", "hipEventDestroy")                                          \
    X(event_record, (Object event, Object stream), "cuEventRecord", "hipEventRecord")                                 \
    X(event_elapsed, (float *milliseconds, Object first, Object second), "cuEventElapsedTime", "hipEventElapsedTime") \
    X(ipc_get, (IpcHandle * handle, Address address), "cuIpcGetMemHandle", "hipIpcGetMemHandle")                      \
    X(ipc_open, (Address * address, IpcHandle handle, unsigned flags), "cuIpcOpenMemHandle_v2",                       \
      "hipIpcOpenMemHandle")                                                                                          \
    X(ipc_close, (Address address), "cuIpcCloseMemHandle", "hipIpcCloseMemHandle")                                    \
    X(can_access_peer, (int *can, int device, int peer), "cuDeviceCanAccessPeer", "hipDeviceCanAccessPeer")

/// Younger than the oldest drivers and runtimes: what is missing is null.
#define GT_NATIVE_NEWER_FUNCTIONS(X)                                                                              \
    X(managed_alloc, (Address * address, std::size_t bytes, unsigned flags), "cuMemAllocManaged",                 \
      "hipMallocManaged")                                                                                         \
    X(host_call, (Object stream, void (*function)(void *), void *data), "cuLaunchHostFunc", "hipLaunchHostFunc")  \
    X(begin_capture, (Object stream, int mode), "cuStreamBeginCapture_v2", "hipStreamBeginCapture")               \
    X(end_capture, (Object stream, Object * graph), "cuStreamEndCapture", "hipStreamEndCapture")                  \
    X(graph_instantiate, (Object * run, Object graph, unsigned long long flags), "cuGraphInstantiateWithFlags",   \
      "hipGraphInstantiateWithFlags")                                                                             \
    X(graph_launch, (Object run, Object stream), "cuGraphLaunch", "hipGraphLaunch")                               \
    X(graph_exec_destroy, (Object run), "cuGraphExecDestroy", "hipGraphExecDestroy")                              \
    X(graph_destroy, (Object graph), "cuGraphDestroy", "hipGraphDestroy")

struct Calls {
#define GT_MEMBER(member, parameters, cuda, hip) int(*member) parameters = nullptr;
    GT_NATIVE_FUNCTIONS(GT_MEMBER)
    GT_NATIVE_NEWER_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
};

constexpr unsigned kStreamNonBlocking = 1, kAttachGlobal = 1;
constexpr int kCaptureRelaxed = 2;
constexpr int kNotSupported = 801;  // CUDA_ERROR_NOT_SUPPORTED, hipErrorNotSupported

struct Buffer {
    Address address = 0;
    Memory where = Memory::kDevice;
    bool imported = false;
    std::size_t bytes = 0;
    int device = -1;  // the other device's, if it lies there
};

struct Kernel {
    Object function = nullptr;
    std::size_t shared = 0;
};

}  // namespace native

/// Everything of the table that is a call of the list above.
class NativeBackend : public Backend {
  public:
    MemoryInfo memory() override;
    Handle alloc(std::size_t bytes, Memory where) override;
    void free(Handle buffer) override;
    void *address(Handle buffer) override;
    void write(Handle buffer, const void *from, std::size_t bytes, std::size_t offset) override;
    void read(Handle buffer, void *into, std::size_t bytes, std::size_t offset) override;
    double copy(const Place &to, const Place &from, std::size_t bytes) override;
    void unload(Handle module) override;
    Handle kernel(Handle module, const char *name) override;
    double launch(Handle kernel, std::size_t items, std::size_t group, const std::vector<Arg> &args) override;
    Handle queue(int priority) override;
    void free_queue(Handle queue) override;
    void enqueue(Handle queue, Handle kernel, std::size_t items, std::size_t group,
                 const std::vector<Arg> &args) override;
    void enqueue_copy(Handle queue, const Place &to, const Place &from, std::size_t bytes) override;
    void enqueue_call(Handle queue, void (*function)(void *), void *data) override;
    void finish(Handle queue) override;
    Handle event() override;
    void free_event(Handle event) override;
    void record(Handle event, Handle queue) override;
    void wait(Handle queue, Handle event) override;
    double between(Handle first, Handle second) override;
    Handle graph(const std::function<void(Handle queue)> &enqueue_all) override;
    void enqueue_graph(Handle queue, Handle graph) override;
    void free_graph(Handle graph) override;
    std::string export_memory(Handle buffer) override;
    Handle import_memory(const std::string &name, std::size_t bytes) override;
    bool reaches(std::size_t other) override;
    std::uint64_t native_address(Handle buffer) override;
    void *native_stream(Handle queue) override;

  protected:
    /// Open the first of the libraries that is there, or the one that the user names.
    void *open_library(const std::string &wanted, const std::vector<const char *> &usual, const char *what);
    /// Fill `calls_`; `cuda`: by which of the two names.
    void look_up(void *library, bool cuda);
    /// Make this thread one that uses the opened context: both APIs keep it per thread.
    virtual void enter() = 0;
    virtual int copy_async(native::Address to, native::Address from, std::size_t bytes, native::Object stream) = 0;
    virtual std::string describe(int status) = 0;
    void must(int status, const char *what);

    /// Make the queue and the events that `launch` and `copy` use. The context is there.
    void begin();
    /// Give back what was made since; errors of a context that is broken already are of no interest.
    void end();
    native::Object stream_of(Handle queue) const { return queue ? queue : main_; }

    native::Calls calls_;
    bool fake_ = false;
    int device_ = 0;
    native::Object main_ = nullptr;
    std::set<native::Buffer *> buffers_;
    std::set<native::Kernel *> kernels_;
    std::set<native::Object> modules_, streams_, events_, graphs_;

  private:
    native::Address address_of(const Place &place) const;
    void start(native::Object stream, Handle kernel, std::size_t items, std::size_t group,
               const std::vector<Arg> &args);
    void release(native::Buffer *buffer);
    double between_marks();

    native::Object before_ = nullptr, after_ = nullptr;
};

/// What the numbers mean that CUDA and HIP share.
Cause native_cause(int status);

}  // namespace gt
