// Two devices: copies from one to the other and back, and kernels of one that read and write the other's memory.
#include <cstdint>
#include <string>
#include <vector>

#include "../numbered.h"

namespace {

using namespace gt;

constexpr std::uint32_t kWords = (1u << 20) + 3;  // 8 MiB and a bit
constexpr std::uint32_t kCopies = 5;

/// The other device: after the opened one in the driver's order, and the first of those that it reaches, if any.
std::size_t other_device(Context &context, const std::vector<DeviceInfo> &devices) {
    std::size_t chosen = devices.size();
    for (std::size_t step = 1; step < devices.size(); ++step) {
        const std::size_t index = (context.index() + step) % devices.size();
        if (devices[index].kind != context.device().kind) continue;
        if (context.backend.reaches(index)) return index;
        if (chosen == devices.size()) chosen = index;
    }
    return chosen;
}

void peer(Context &context) {
    Backend &backend = context.backend;
    context.open_device();
    const std::vector<DeviceInfo> devices = backend.enumerate();
    if (devices.size() < 2) throw Inapplicable("the driver offers one device, and two are needed");
    const std::size_t other = other_device(context, devices);
    if (other == devices.size()) throw Inapplicable("the driver offers no second device of the same kind");
    const std::string name = devices[other].bdf.empty() ? std::to_string(other) : devices[other].bdf;
    if (!backend.reaches(other)) throw Inapplicable("the opened device does not reach the memory of " + name);

    Numbered numbered(context);
    const std::size_t size = std::size_t{kWords} * 8;
    const Handle here = backend.alloc(size), back = backend.alloc(size);
    const Handle there = backend.alloc_on(other, size);

    context.phase("direct access");
    // Written here and left alone: writes to the other device must not end up in the opened one's memory.
    numbered.write(here, kWords, 0, 2);
    numbered.write(there, kWords, 1ull << 40, 3);
    std::uint64_t bad = numbered.wrong(there, kWords, 1ull << 40, 3);
    context.check("direct_access", kWords, bad, name + ": " + numbered.where());
    bad = numbered.wrong(here, kWords, 0, 2);
    context.check("own_memory_untouched", kWords, bad, numbered.where());

    // What lies at a copy's end is another thing before each, so that none can profit from the one before.
    std::vector<double> to, from;
    const auto copies = [&](const char *check, Handle into, Handle out_of, std::uint64_t base,
                            std::vector<double> &rates) {
        context.phase(check);
        std::uint64_t wrong = 0;
        std::string where;
        for (std::uint32_t i = 0; i < kCopies; ++i) {
            numbered.write(into, kWords, base, 0);
            numbered.write(out_of, kWords, base, 4 + i);
            rates.push_back(static_cast<double>(size) / backend.copy(Place::in(into), Place::in(out_of), size));
            const std::uint64_t more = numbered.wrong(into, kWords, base, 4 + i);
            if (more && !wrong) where = name + ": copy " + std::to_string(i + 1) + ": " + numbered.where();
            wrong += more;
        }
        context.check(check, std::uint64_t{kCopies} * kWords, wrong, where);
    };
    copies("copied_there", there, back, 2ull << 40, to);
    copies("copied_back", back, there, 3ull << 40, from);
    bad = numbered.wrong(here, kWords, 0, 2);
    context.check("own_memory_still_untouched", kWords, bad, numbered.where());

    backend.free(there);
    backend.free(back);
    backend.free(here);
    context.metric("peer_write_bw", "B/s", "higher", to);
    context.metric("peer_read_bw", "B/s", "higher", from);
}

GT_TEST("peer", peer);

}  // namespace
