#include "be_ocl.h"

namespace gt {
namespace ocl {

Handle OpenCl::alloc(std::size_t bytes, Memory where) {
    auto buffer = std::make_unique<Buffer>();
    if (where == Memory::kManaged) {
        if ((svm() & kSvmFineGrainBuffer) == 0) throw Inapplicable("the device has no fine-grained shared memory");
        buffer->address = api_.clSVMAlloc(context_, kMemReadWrite | kMemSvmFineGrainBuffer, bytes, 0);
        if (!buffer->address) throw ApiFailure("clSVMAlloc gave no memory", Cause::kOutOfMemory);
    } else {
        const bool pinned = where == Memory::kPinned;
        Int status = kSuccess;
        buffer->memory = api_.clCreateBuffer(context_, kMemReadWrite | (pinned ? kMemAllocHostPtr : 0), bytes,
                                             nullptr, &status);
        must(status, "clCreateBuffer");
        if (pinned) {
            buffer->address = api_.clEnqueueMapBuffer(main_.queue, buffer->memory, 1, kMapReadWrite, 0, bytes, 0,
                                                      nullptr, nullptr, &status);
            if (status != kSuccess) {
                api_.clReleaseMemObject(buffer->memory);
                must(status, "clEnqueueMapBuffer");
            }
        }
    }
    return keep(buffers_, std::move(buffer));
}

void OpenCl::free(Handle handle) {
    Buffer *buffer = static_cast<Buffer *>(handle);
    if (buffers_.erase(buffer)) release(buffer);
}

void OpenCl::write(Handle buffer, const void *from, std::size_t bytes, std::size_t offset) {
    enqueue_between(main_.queue, Place::in(buffer, offset), Place::from(from), bytes, true, nullptr);
}

void OpenCl::read(Handle buffer, void *into, std::size_t bytes, std::size_t offset) {
    enqueue_between(main_.queue, Place::at(into), Place::in(buffer, offset), bytes, true, nullptr);
}

double OpenCl::copy(const Place &to, const Place &from, std::size_t bytes) {
    Object event = nullptr;
    enqueue_between(main_.queue, to, from, bytes, false, &event);
    return seconds_of(event);
}

void OpenCl::prefetch(Handle handle, bool to_device) {
    const void *address = static_cast<Buffer *>(handle)->address;
    if (!api_.clEnqueueSVMMigrateMem) return;
    must(api_.clEnqueueSVMMigrateMem(main_.queue, 1, &address, nullptr, to_device ? 0 : kMigrateToHost, 0, nullptr,
                                     nullptr),
         "clEnqueueSVMMigrateMem");
    must(api_.clFinish(main_.queue), "clFinish");
}

void OpenCl::enqueue_between(Object queue, const Place &to, const Place &from, std::size_t bytes, bool blocking,
                     Object *event) {
    const auto *target = static_cast<const Buffer *>(to.buffer), *source = static_cast<const Buffer *>(from.buffer);
    Object into = target ? target->memory : nullptr, out = source ? source->memory : nullptr;
    char *to_host = static_cast<char *>(target ? target->address : to.host) + (target ? to.offset : 0);
    const char *from_host =
        static_cast<const char *>(source ? source->address : from.host) + (source ? from.offset : 0);
    // Pinned memory is a buffer of its own to OpenCL, and a host address to what is copied from and to it.
    if (into && target->address && out && !source->address) into = nullptr;
    if (out && source->address && into && !target->address) out = nullptr;
    if (into && out) {
        must(api_.clEnqueueCopyBuffer(queue, out, into, from.offset, to.offset, bytes, 0, nullptr, event),
             "clEnqueueCopyBuffer");
        if (blocking) must(api_.clFinish(queue), "clFinish");
    } else if (into) {
        must(api_.clEnqueueWriteBuffer(queue, into, blocking, to.offset, bytes, from_host, 0, nullptr, event),
             "clEnqueueWriteBuffer");
    } else if (out) {
        must(api_.clEnqueueReadBuffer(queue, out, blocking, from.offset, bytes, to_host, 0, nullptr, event),
             "clEnqueueReadBuffer");
    } else {
        if (!api_.clEnqueueSVMMemcpy) throw Inapplicable("this OpenCL has no shared virtual memory");
        must(api_.clEnqueueSVMMemcpy(queue, blocking, to_host, from_host, bytes, 0, nullptr, event),
             "clEnqueueSVMMemcpy");
    }
}

void OpenCl::release(Buffer *buffer) {
    if (buffer->memory && buffer->address) {
        api_.clEnqueueUnmapMemObject(main_.queue, buffer->memory, buffer->address, 0, nullptr, nullptr);
        api_.clFinish(main_.queue);
    }
    if (buffer->memory) api_.clReleaseMemObject(buffer->memory);
    else if (buffer->address) api_.clSVMFree(context_, buffer->address);
    delete buffer;
}

}  // namespace ocl
}  // namespace gt
