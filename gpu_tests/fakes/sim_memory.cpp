// Memory of the simulated GPU. What a device has is one file without a name, so that another process can map parts of
// it; every allocation is mapped between pages that nobody may touch.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "faults.h"
#include "sim.h"
#include "sim_pages.h"
#include "sim_state.h"

namespace gt_sim {
namespace {

using gt_fake::is;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kGuard = 2u << 20;

struct Allocation {
    char *memory;         // what the address names
    std::size_t bytes;    // asked for
    std::size_t mapped;   // whole pages
    Kind kind;
    Context *context;
    off_t offset;         // in the device's file; -1: another process's
};

struct Memory {
    std::mutex lock;
    std::map<Address, Allocation> allocations;
    struct Device {
        int file = -1;
        off_t end = 0;
        std::atomic<std::uint64_t> used{0};  // what stays in its memory: managed memory comes and goes
        std::uint64_t managed = 0;
    } devices[Description::kDevices];
};

Memory &memory() {
    static auto *const all = new Memory;
    return *all;
}

std::size_t whole_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

/// Map part of a device's file between guards.
char *map(int file, off_t offset, std::size_t mapped, int sharing) {
    char *const inside = reserve(mapped);
    if (!inside) return nullptr;
    const void *got = ::mmap(inside, mapped, PROT_READ | PROT_WRITE, sharing | MAP_FIXED | MAP_NORESERVE, file, offset);
    if (got == MAP_FAILED) {
        ::munmap(inside - kGuard, mapped + 2 * kGuard);
        return nullptr;
    }
    return inside;
}

void unmap(const Allocation &allocation) {
    ::munmap(allocation.memory - kGuard, allocation.mapped + 2 * kGuard);
}

Address address_of(const char *memory) { return reinterpret_cast<Address>(memory); }

void give_back(Memory::Device &device, const Allocation &allocation) {
    if (allocation.kind == Kind::kManaged) unmap_managed(allocation.memory);
    unmap(allocation);
    if (allocation.offset < 0) return;
    ::fallocate(device.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, allocation.offset,
                static_cast<off_t>(allocation.mapped));
    if (allocation.kind == Kind::kDevice) device.used -= allocation.mapped;
    if (allocation.kind == Kind::kManaged) device.managed -= allocation.mapped;
}

}  // namespace

/// The call itself: C libraries before 2.27 have no memfd_create(2).
int anonymous_file() {
    constexpr unsigned kCloseOnExec = 1;
    return static_cast<int>(::syscall(SYS_memfd_create, "gt_sim", kCloseOnExec));
}

char *reserve(std::size_t mapped) {
    void *around = ::mmap(nullptr, mapped + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return around == MAP_FAILED ? nullptr : static_cast<char *>(around) + kGuard;
}

std::uint64_t room(int device) {
    const std::uint64_t used = memory().devices[device].used;
    return used > memory_bytes() ? 0 : memory_bytes() - used;
}

void charge(int device, std::int64_t bytes) {
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    all.devices[device].used += static_cast<std::uint64_t>(bytes);
}

Status allocate(std::size_t bytes, Kind kind, Address *address) {
    Context *const context = in_use();
    if (!context) return kInvalidContext;
    if (const Status broken = condition()) return broken;
    if (bytes == 0 || !address) return kInvalidValue;
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    Memory::Device &device = all.devices[device_of(context)];
    const std::size_t mapped = whole_pages(bytes);
    // Managed memory may be more than the device has; beyond twice of it the host's is used up, too.
    const std::uint64_t most = kind == Kind::kDevice ? memory_bytes() : 2 * memory_bytes();
    const std::uint64_t used = kind == Kind::kDevice ? device.used.load() : device.used + device.managed;
    if ((mapped > most || used + mapped > most) && !is("no_oom")) return kOutOfMemory;
    if (device.file < 0) device.file = anonymous_file();
    const off_t offset = device.end;
    const off_t end = offset + static_cast<off_t>(mapped);
    if (::ftruncate(device.file, end) != 0) return kOutOfMemory;
    const int index = device_of(context);
    char *const memory = kind == Kind::kManaged ? map_managed(index, device.file, offset, mapped)
                                                : map(device.file, offset, mapped, MAP_SHARED);
    if (!memory) return kOutOfMemory;
    if (is("aliased") && kind == Kind::kDevice && mapped >= (1u << 20)) {
        // Two pages of a large buffer are the same memory.
        ::mmap(memory + mapped / 2 / kPage * kPage, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, device.file,
               offset);
    }
    device.end = end;
    if (kind == Kind::kManaged) device.managed += mapped;
    if (kind == Kind::kDevice) {
        device.used += mapped;
        evict_beyond(index);
    }
    *address = address_of(memory);
    all.allocations[*address] = {memory, bytes, mapped, kind, context, offset};
    return kSuccess;
}

Status release(Address address) {
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    const auto found = all.allocations.find(address);
    if (found == all.allocations.end()) return kInvalidValue;
    Memory::Device &device = all.devices[device_of(found->second.context)];
    // A leak: unmapped for the process, and never given back to the device.
    if (is("leak") && found->second.kind != Kind::kManaged) unmap(found->second);
    else give_back(device, found->second);
    all.allocations.erase(found);
    return kSuccess;
}

void release_all_of(Context *context) {
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    for (auto entry = all.allocations.begin(); entry != all.allocations.end();) {
        if (entry->second.context != context) {
            ++entry;
            continue;
        }
        give_back(all.devices[device_of(context)], entry->second);
        entry = all.allocations.erase(entry);
    }
}

Status memory_info(std::size_t *free, std::size_t *total) {
    if (!in_use()) return kInvalidContext;
    if (const Status broken = condition()) return broken;
    return memory_info(device_of(in_use()), free, total);
}

Status memory_info(int device, std::size_t *free, std::size_t *total) {
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    const std::uint64_t used = all.devices[device].used + resident(device);
    *total = memory_bytes();
    *free = used > memory_bytes() ? 0 : memory_bytes() - used;
    return kSuccess;
}

Where where(Address address, std::size_t bytes, Kind *kind) {
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    auto after = all.allocations.upper_bound(address);
    if (after == all.allocations.begin()) return Where::kProcess;
    const Allocation &before = (--after)->second;
    const Address end = after->first + before.mapped + kGuard;
    if (address >= end) return Where::kProcess;
    if (kind) *kind = before.kind;
    return address + bytes <= after->first + before.bytes ? Where::kOurs : Where::kBeyond;
}

Status share(Address address, unsigned char (&name)[kIpcBytes]) {
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    const auto found = all.allocations.find(address);
    if (found == all.allocations.end() || found->second.kind != Kind::kDevice) return kInvalidValue;
    const Allocation &shared = found->second;
    std::memset(name, 0, sizeof name);
    std::snprintf(reinterpret_cast<char *>(name), sizeof name, "%d %d %llx %zx", ::getpid(),
                  all.devices[device_of(shared.context)].file, static_cast<unsigned long long>(shared.offset),
                  shared.bytes);
    return kSuccess;
}

Status open_shared(const unsigned char (&name)[kIpcBytes], Address *address) {
    Context *const context = in_use();
    if (!context) return kInvalidContext;
    int process = 0, file = 0;
    unsigned long long offset = 0;
    std::size_t bytes = 0;
    const std::string text(reinterpret_cast<const char *>(name),
                           ::strnlen(reinterpret_cast<const char *>(name), kIpcBytes));
    if (std::sscanf(text.c_str(), "%d %d %llx %zx", &process, &file, &offset, &bytes) != 4) return kInvalidValue;
    if (process == ::getpid()) return kInvalidContext;  // as CUDA does: the name is for another process
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
    const int opened = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (opened < 0) return kInvalidValue;
    const std::size_t mapped = whole_pages(bytes);
    char *const memory = map(opened, static_cast<off_t>(offset), mapped, is("ipc_stale") ? MAP_PRIVATE : MAP_SHARED);
    ::close(opened);
    if (!memory) return kOutOfMemory;
    if (is("ipc_stale")) {
        // Written once, each page is this process's own from now on: what the other one writes later stays unseen.
        for (std::size_t at = 0; at < mapped; at += kPage) static_cast<volatile char *>(memory)[at] = memory[at];
    }
    Memory &all = gt_sim::memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    *address = address_of(memory);
    all.allocations[*address] = {memory, bytes, mapped, Kind::kDevice, context, -1};
    return kSuccess;
}

Status close_shared(Address address) {
    {
        Memory &all = memory();
        const std::lock_guard<std::mutex> hold(all.lock);
        const auto found = all.allocations.find(address);
        if (found == all.allocations.end() || found->second.offset >= 0) return kInvalidValue;
    }
    return release(address);
}

std::function<void()> withheld_page() {
    Memory &all = memory();
    const std::lock_guard<std::mutex> hold(all.lock);
    std::map<Address, std::string> pages;
    for (const auto &[address, allocation] : all.allocations) {
        if (allocation.kind != Kind::kManaged) continue;
        const std::size_t at = allocation.mapped / 2 / kPage * kPage;
        const std::size_t length = std::min(kPage, allocation.bytes - std::min(at, allocation.bytes));
        pages[address + at] = std::string(allocation.memory + at, length);
    }
    return [pages] {
        for (const auto &[address, content] : pages) {
            std::memcpy(reinterpret_cast<char *>(address), content.data(), content.size());
        }
    };
}

}  // namespace gt_sim
