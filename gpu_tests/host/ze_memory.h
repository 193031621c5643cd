// Level Zero's memory: buffers, and how another process opens them.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "ze_driver.h"

namespace gt {
namespace ze_driver {

struct Buffer {
    void *address = nullptr;
    std::size_t bytes = 0;
    Memory where = Memory::kDevice;
    bool imported = false;
};

/// Where a copy starts or ends, as Level Zero takes it.
char *address_of(const Place &place);

/// Whether this kernel lets a process take over a descriptor of another one, by which memory is shared (Linux 5.6).
bool can_adopt_descriptors();

/// All buffers of the opened device.
class Buffers {
  public:
    explicit Buffers(const Opened &on) : on_(on) {}

    Buffer *alloc(std::size_t bytes, Memory where);
    /// Memory of another device of the same driver.
    Buffer *alloc_on(ze::Object device, std::size_t bytes);
    void free(Buffer *buffer);
    /// Move managed memory to the device, or let it go back, by way of this command list.
    void prefetch(const Buffer &buffer, bool to_device, ze::Object list);
    std::string name_for_others(const Buffer &buffer);
    Buffer *open_named(const std::string &name, std::size_t bytes);
    void release();

  private:
    Buffer *keep(std::unique_ptr<Buffer> buffer);
    ze::Result give_back(const Buffer &buffer);

    const Opened &on_;
    std::set<Buffer *> all_;
};

}  // namespace ze_driver
}  // namespace gt
