// Device memory that two processes have open at once: each must see what the other wrote last, in both directions.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "../child.h"
#include "../numbered.h"

namespace {

using namespace gt;

constexpr std::uint32_t kWords = (1u << 20) + 5;  // 8 MiB and a bit
constexpr std::uint32_t kCopies = 5;
constexpr double kPatience = 60.0;                // seconds for one step of the other process: it measures nothing
// What is in the memory, step by step: the parent's memory, and the child's.
constexpr std::uint32_t kOurs = 2, kOursByThem = 3, kOursAgain = 4, kTheirs = 5, kTheirsByUs = 6;
constexpr std::uint64_t kOursBase = 0, kTheirsBase = 1ull << 40;

std::string hex(const std::string &bytes) {
    std::string out;
    char text[3];
    for (const char byte : bytes) {
        std::snprintf(text, sizeof text, "%02x", static_cast<unsigned char>(byte));
        out += text;
    }
    return out;
}

std::string bytes(const std::string &hex) {
    std::string out;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return out;
}

/// The other process. What it has to say to its parent are checks, in this order.
void other_process(Context &context) {
    Backend &backend = context.backend;
    context.open_device();
    Numbered numbered(context);
    const Handle ours = backend.import_memory(bytes(context.argument("name")), std::size_t{kWords} * 8);
    std::uint64_t bad = numbered.wrong(ours, kWords, kOursBase, kOurs);
    context.check("sees_it_at_first", kWords, bad, numbered.where());
    numbered.write(ours, kWords, kOursBase, kOursByThem);
    const Handle theirs = backend.alloc(std::size_t{kWords} * 8);
    numbered.write(theirs, kWords, kTheirsBase, kTheirs);
    backend.finish(nullptr);
    context.check("has_written", 1, 0, hex(backend.export_memory(theirs)));
    // The parent closes the pipe when it has written.
    for (char byte; ::read(0, &byte, 1) > 0;) {
    }
    bad = numbered.wrong(ours, kWords, kOursBase, kOursAgain);
    context.check("sees_what_was_written_later", kWords, bad, numbered.where());
    bad = numbered.wrong(theirs, kWords, kTheirsBase, kTheirsByUs);
    context.check("sees_what_was_written_to_its_own", kWords, bad, numbered.where());
    backend.free(ours);
    backend.free(theirs);
}

void ipc(Context &context) {
    if (context.argument("role") == "other") return other_process(context);
    Backend &backend = context.backend;
    context.open_device();
    context.require(backend.properties().ipc, "memory that is shared between processes");
    Numbered numbered(context);
    const std::size_t size = std::size_t{kWords} * 8;
    const Handle ours = backend.alloc(size), copy = backend.alloc(size);
    numbered.write(ours, kWords, kOursBase, kOurs);
    context.check("own_memory", kWords, numbered.wrong(ours, kWords, kOursBase, kOurs), numbered.where());

    context.phase("another process opens it");
    Child child(own_argv(context.options, context.options.test, context.options.budget, 4 * kPatience,
                         {"role=other", "name=" + hex(backend.export_memory(ours))}));
    const bool written = child.said("has_written", kPatience);
    if (!written) child.wait(0.0);
    context.check("other_process_writes", 1, !written, written ? "" : child.story());
    if (!written) return;
    const bool saw = child.text("check", "ok", "sees_it_at_first") == "true";
    const std::string seen = child.text("check", "detail", "sees_it_at_first");
    context.check("other_process_sees_ours", kWords, saw ? 0 : kWords, seen);

    context.phase("read what it wrote");
    std::uint64_t bad = numbered.wrong(ours, kWords, kOursBase, kOursByThem);
    context.check("ours_holds_what_it_wrote", kWords, bad, numbered.where());
    const Handle theirs = backend.import_memory(bytes(child.text("check", "detail", "has_written")), size);
    bad = numbered.wrong(theirs, kWords, kTheirsBase, kTheirs);
    context.check("theirs_is_seen", kWords, bad, numbered.where());
    std::vector<double> rates;
    bad = 0;
    for (std::uint32_t i = 0; i < kCopies; ++i) {
        numbered.write(copy, kWords, i, 0);
        rates.push_back(static_cast<double>(size) / backend.copy(Place::in(copy), Place::in(theirs), size));
        bad += numbered.wrong(copy, kWords, kTheirsBase, kTheirs);
    }
    context.check("theirs_is_copied", std::uint64_t{kCopies} * kWords, bad, numbered.where());

    context.phase("write to both");
    numbered.write(ours, kWords, kOursBase, kOursAgain);
    numbered.write(theirs, kWords, kTheirsBase, kTheirsByUs);
    backend.finish(nullptr);
    child.release();
    const bool passed = child.wait(kPatience).passed();
    context.check("other_process_sees_later_writes", 2 * kWords, passed ? 0 : 2 * kWords, child.story());
    // The process that made it is gone: ours lives on, and what we opened is given back without harm.
    backend.free(theirs);
    bad = numbered.wrong(ours, kWords, kOursBase, kOursAgain);
    context.check("ours_is_left", kWords, bad, numbered.where());
    backend.free(ours);
    backend.free(copy);
    context.metric("imported_bw", "B/s", "higher", rates);
}

GT_TEST("ipc", ipc);

}  // namespace
