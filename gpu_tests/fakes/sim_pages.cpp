#include "sim_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "damage.h"
#include "sim_groups.h"
#include "sim_state.h"

namespace gt_sim {
namespace {

using gt_fake::is;

constexpr std::size_t kBlock = 2u << 20;
constexpr std::size_t kLost = 4096;  // of a block that an eviction damages

struct Range;

/// What moves at once. Its address is mapped to where it lies, or not at all: then the next access faults.
struct Block {
    Range *range;
    std::size_t at, bytes;
    bool on_device = false, mapped = false;
    bool used = false;  // else all of it is zero
    Block *older = nullptr, *newer = nullptr;  // of those on the device, by their arrival
};

/// Part of a file.
struct Home {
    int file = -1;
    off_t offset = 0;
};

/// One allocation, and where its blocks lie when they are on the host, and when they are on the device.
struct Range {
    char *memory;
    std::size_t mapped;
    int device;
    Home homes[2];
    std::vector<Block> blocks;
};

struct Pages {
    std::mutex lock;  // also taken by the handler of faults: who holds it touches no managed memory
    std::vector<std::unique_ptr<Range>> ranges;
    int host_file = -1;
    off_t host_end = 0;
    std::uint32_t evictions = 0;
    std::vector<char> on_its_way = std::vector<char>(kBlock);
    struct Device {
        Block *oldest = nullptr, *newest = nullptr;
        std::uint64_t resident = 0;
    } devices[Description::kDevices];
};

Pages &pages() {
    static auto *const all = new Pages;
    return *all;
}

void protect(Block &block, bool mapped) {
    ::mprotect(block.range->memory + block.at, block.bytes, mapped ? PROT_READ | PROT_WRITE : PROT_NONE);
    block.mapped = mapped;
}

void give_back(const Home &home, std::size_t at, std::size_t bytes) {
    ::fallocate(home.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, home.offset + static_cast<off_t>(at),
                static_cast<off_t>(bytes));
}

/// Let the block's address name its place on the device, or on the host. It is not mapped yet.
void name(Block &block, bool device) {
    const Home &home = block.range->homes[device];
    ::mmap(block.range->memory + block.at, block.bytes, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, home.file,
           home.offset + static_cast<off_t>(block.at));
    block.mapped = false, block.on_device = device;
}

/// Copy the block to its other place, without its first `lost` bytes, and let its address name that.
void move(Pages &all, Block &block, std::size_t lost = 0) {
    Range &range = *block.range;
    const Home &from = range.homes[block.on_device], &to = range.homes[!block.on_device];
    protect(block, false);
    if (block.used) {
        const off_t at = static_cast<off_t>(block.at);
        const bool read = ::pread(from.file, all.on_its_way.data(), block.bytes, from.offset + at) ==
                          static_cast<ssize_t>(block.bytes);
        const ssize_t rest = static_cast<ssize_t>(block.bytes - lost);
        if (!read || ::pwrite(to.file, all.on_its_way.data() + lost, block.bytes - lost,
                              to.offset + at + static_cast<off_t>(lost)) != rest) {
            std::abort();  // the machine that simulates has no memory left
        }
        give_back(from, block.at, block.bytes);
    }
    name(block, !block.on_device);
}

void link(Pages::Device &device, Block &block) {
    block.older = device.newest, block.newer = nullptr;
    (device.newest ? device.newest->newer : device.oldest) = &block;
    device.newest = &block;
    device.resident += block.bytes;
}

void unlink(Pages::Device &device, Block &block) {
    (block.older ? block.older->newer : device.oldest) = block.newer;
    (block.newer ? block.newer->older : device.newest) = block.older;
    device.resident -= block.bytes;
}

void to_host(Pages &all, Block &block, std::size_t lost = 0) {
    unlink(all.devices[block.range->device], block);
    move(all, block, lost);
}

void evict(Pages &all, int device) {
    Block &block = *all.devices[device].oldest;
    if (is("stuck_eviction")) gt_fake::hang();
    const bool loses = is("lost_eviction") && ++all.evictions % 16 == 0;
    to_host(all, block, loses ? std::min(kLost, block.bytes) : 0);
}

void make_room(Pages &all, int device, std::uint64_t bytes) {
    Pages::Device &of = all.devices[device];
    while (of.oldest && of.resident + bytes > room(device)) evict(all, device);
}

/// Where it finds no room, the block stays, and kernels reach it on the host.
void to_device(Pages &all, Block &block) {
    const int device = block.range->device;
    make_room(all, device, block.bytes);
    if (all.devices[device].resident + block.bytes > room(device)) return;
    move(all, block);
    link(all.devices[device], block);
}

Range *range_of(Pages &all, const char *address) {
    for (const std::unique_ptr<Range> &range : all.ranges) {
        if (address >= range->memory && address < range->memory + range->mapped) return range.get();
    }
    return nullptr;
}

}  // namespace

char *map_managed(int device, int file, off_t offset, std::size_t mapped) {
    catch_faults();
    Pages &all = pages();
    const std::lock_guard<std::mutex> hold(all.lock);
    if (all.host_file < 0) all.host_file = anonymous_file();
    const off_t end = all.host_end + static_cast<off_t>(mapped);
    auto range = std::make_unique<Range>();
    range->device = device, range->mapped = mapped, range->memory = reserve(mapped);
    range->homes[0] = {all.host_file, all.host_end}, range->homes[1] = {file, offset};
    if (!range->memory || ::ftruncate(all.host_file, end) != 0) return nullptr;
    all.host_end = end;
    for (std::size_t at = 0; at < mapped; at += kBlock) {
        range->blocks.push_back({range.get(), at, std::min(kBlock, mapped - at)});
    }
    for (Block &block : range->blocks) name(block, false);
    all.ranges.push_back(std::move(range));
    return all.ranges.back()->memory;
}

void unmap_managed(const char *memory) {
    Pages &all = pages();
    const std::lock_guard<std::mutex> hold(all.lock);
    for (auto it = all.ranges.begin(); it != all.ranges.end(); ++it) {
        Range &range = **it;
        if (range.memory != memory) continue;
        for (Block &block : range.blocks) {
            if (block.on_device) unlink(all.devices[range.device], block);
        }
        give_back(range.homes[0], 0, range.mapped);
        all.ranges.erase(it);
        return;
    }
}

std::uint64_t resident(int device) {
    Pages &all = pages();
    const std::lock_guard<std::mutex> hold(all.lock);
    return all.devices[device].resident;
}

void evict_beyond(int device) {
    Pages &all = pages();
    const std::lock_guard<std::mutex> hold(all.lock);
    make_room(all, device, 0);
}

void unmap_blocks() {
    Pages &all = pages();
    const std::lock_guard<std::mutex> hold(all.lock);
    for (const std::unique_ptr<Range> &range : all.ranges) {
        for (Block &block : range->blocks) {
            if (block.mapped) protect(block, false);
        }
    }
}

void migrate(Address address, std::size_t bytes, bool device) {
    Pages &all = pages();
    const std::lock_guard<std::mutex> hold(all.lock);
    const char *const begin = reinterpret_cast<const char *>(address);
    Range *const range = range_of(all, begin);
    if (!range) return;
    for (Block &block : range->blocks) {
        const char *const at = range->memory + block.at;
        if (at + block.bytes <= begin || at >= begin + bytes || block.on_device == device) continue;
        if (device) to_device(all, block);
        else to_host(all, block);
    }
}

bool page_in(const void *address, bool kernel) {
    Pages &all = pages();
    const std::lock_guard<std::mutex> hold(all.lock);
    Range *const range = range_of(all, static_cast<const char *>(address));
    if (!range) return false;
    Block &block = range->blocks[static_cast<std::size_t>(static_cast<const char *>(address) - range->memory) / kBlock];
    if (block.mapped) return true;  // another thread's fault at the same block was faster
    if (kernel && !block.on_device) to_device(all, block);
    if (!kernel && block.on_device) to_host(all, block);
    protect(block, true);
    block.used = true;
    // All pages at once, instead of a fault each.
    constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE; kernels before 5.14 do without
    ::madvise(range->memory + block.at, block.bytes, kPopulateWrite);
    return true;
}

}  // namespace gt_sim
